# Everything is run as root: tests and demo make network namespaces.

GO         ?= go
FUZZTIME   ?= 10s
# Of the long run of the kernel path's model: the same histories for everybody. Try others.
SEED       ?= 1
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: demo
demo: deps build ## show postern at work on real packets, in network namespaces
	$(GO) run ./test/demo -program bin/postern

.PHONY: test
test: deps style unit fuzz test-vm test-node test-systemd ## everything that CI runs

.PHONY: build
build: ## bin/postern
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/postern ./cmd/postern

.PHONY: packages
packages: ## bin/postern_VERSION_ARCH.deb and the .rpm; VERSION is the commit's unless given
	GO="$(GO)" VERSION="$(VERSION)" OUT="$(OUT)" deploy/packages/build.sh

.PHONY: deps
deps: ## install the Debian packages that are missing
	test/deps.sh

.PHONY: style
style: ## gofmt, go vet, staticcheck, of the benchmark module too
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags node ./test/node && $(GO) vet -tags systemd ./test/systemd
	$(GO) run $(STATICCHECK) ./... && $(GO) run $(STATICCHECK) -tags node ./test/node && $(GO) run $(STATICCHECK) -tags systemd ./test/systemd
	cd bench && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...
	cd deploy/chart/check && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...

.PHONY: apiserver
apiserver: ## build kube-apiserver, its etcd and kube-proxy for the tests, once a machine: some seven minutes on two cores
	$(GO) run ./test/kubernetes/build kube-apiserver etcd kube-proxy

.PHONY: unit
unit: apiserver ## all tests, with the race detector: units, vectors, and end to end in namespaces
	$(GO) test -race -timeout 20m ./...
	$(GO) test ./filter/nft -run '^TestModel$$' -rapid.checks 4000 -rapid.steps 80 -rapid.seed $(SEED)
	cd bench && $(GO) test ./...
	cd deploy/istio/check && $(GO) test ./...
	cd deploy/chart/check && $(GO) test ./...

.PHONY: test-vm
test-vm: ## tests on Debian's own kernel, in a virtual machine; six minutes without KVM
	test/deps.sh vm
	$(GO) run ./test/vm

.PHONY: test-node
test-node: ## tests on a real Kubernetes node with real pods; two minutes, and six more to build it once a machine
	test/deps.sh node
	$(GO) run ./test/kubernetes/build kube-apiserver kubelet kube-proxy kube-controller-manager kube-scheduler
	$(GO) test -tags node -count 1 -timeout 15m ./test/node

.PHONY: test-systemd
test-systemd: apiserver ## packages on a booted Debian 12: install, restarts under load, upgrade, removal; three minutes
	test/deps.sh systemd
	$(GO) test -tags systemd -count 1 -timeout 15m -v ./test/systemd

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	GO="$(GO)" test/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: ## a node's policy through 24 simulated hours of churn: memory must stay within 5 %
	$(GO) run ./test/soak

.PHONY: bench
bench: ## benchmarks beside their rivals, and the figures in docs/performance.md
	cd bench && $(GO) test -run '^$$' -bench . -benchtime 0.2s .
	cd bench && $(GO) build -o ../bin/figures ./figures && ../bin/figures -write ../docs/performance.md

.PHONY: bench-authz
bench-authz: ## external authorization: answers within the process and over gRPC, and the figures in docs/performance-authz.md
	cd bench && $(GO) build -o ../bin/bench-authz ./authz && ../bin/bench-authz -write ../docs/performance-authz.md

.PHONY: bench-kernel
bench-kernel: deps ## connections through a real node, beside rivals, and the figures in docs/performance-kernel.md
	cd bench && $(GO) build -o ../bin/bench-kernel ./kernel && ../bin/bench-kernel -write ../docs/performance-kernel.md

.PHONY: bench-kube
bench-kube: deps apiserver ## a large cluster in a real API server, and the figures in docs/performance-kube.md; some ten minutes
	cd bench && $(GO) build -o ../bin/bench-kube ./kube && ../bin/bench-kube -write ../docs/performance-kube.md

.PHONY: replay-stream
replay-stream: ## replay STREAM_GB (10) GB of synthetic capture in constant memory
	STREAM_GB=$${STREAM_GB:-10} $(GO) test ./filter/replay -run 'TestStream$$' -v -timeout 30m

.PHONY: bench-report
bench-report: build ## measure decisions, packets and connections; bin/report.html, and the figures in docs/performance-replay.md
	test/benchreport.sh

.PHONY: bench-all
bench-all: bench bench-report bench-authz bench-kernel bench-kube ## every benchmark, and all pages of figures; some half an hour
