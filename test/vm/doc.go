// Vm runs tests on Debian's own kernel, in a virtual machine.
//
//	vm [-cache DIR] [-accel tcg] [-limit 10m] [-run REGEXP]
//
// Development kernels differ from what hosts run: Debian's has the nft queue
// expression, conntrack attributes in queue messages and flow tables, and all of
// it in modules. So vm fetches the kernel package with apt, unpacks it into the cache
// (nothing is installed), packs the modules that netfilter tests need, the nft
// program, postern and test binaries into an initramfs, boots it with qemu, and
// reads from the serial console how the tests ended. Whatever does not end with the
// guest's own word that all went well is a failure: a test that fails, a kernel
// that panics, a time limit that passes.
//
// The guest has no disk and no network but what tests make in namespaces. Without
// KVM qemu translates instructions, and all is some ten times slower.
package main
