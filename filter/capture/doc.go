// Package capture reads and writes captures of packets: pcap and pcapng, gzipped
// or not, of any size, one packet at a time in a fixed amount of memory.
//
// A Reader gives every packet with its number, its time and the part from its IP
// header on, for the link layers that Linux hosts capture on. Blocks and records
// are gopacket's to read (pcapgo); what it takes on trust is checked before it
// sees it: lengths that would make it allocate gigabytes or lose its place, options
// that would make it panic, an end inside a block, which it takes for the end of
// the capture, and link types above 255, which it cuts off.
//
// A capture that is damaged is read up to the damage. The Error then tells the
// packet and the byte, and everything before it has been given.
//
// A Writer writes pcapng with a comment on each packet, which pcapgo cannot.
//
// Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types as
// tcpdump.org/linktypes.html numbers them.
package capture
