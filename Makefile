# `make` alone lists the targets. The two that matter: `make demo` and `make test`, both as root.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# sudo leaves /usr/local/go/bin out of PATH.
export PATH := $(PATH):/usr/local/go/bin
GO ?= go

# Versions of the tools.
GOLANGCI := v2.15.0
LINTER := build/tools/golangci-lint-$(GOLANGCI)
GOVULNCHECK := v1.8.0
VULNCHECK := build/tools/govulncheck-$(GOVULNCHECK)

# Static, and the same bytes wherever and whenever it is built.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w"
FUZZTIME ?= 30s
FAULTS ?= 6
CLUSTER_FAULTS = $(if $(filter 1,$(FAULTS)),all,$(shell echo $$((60 / $(FAULTS))))m)
FAULT_PARTS := $(addprefix TestKilled/,nft ipt macvlan ptp) $(addprefix TestRefused/,nft ipt macvlan ptp) TestStorm TestAtOnce TestHostile TestComparison/netcleat TestComparison/reference
# A module of its own: it needs much that the project does not.
RELEASE := $(GO) run -C scripts/release .

##@ Build
.PHONY: build
build: ## bin/cni (all plugins) and bin/netcleat (the operator's command), static
	@mkdir -p bin
	$(BUILD) -o bin/cni ./cmd/cni
	$(BUILD) -o bin/netcleat ./cmd/netcleat

.PHONY: man
man: build ## The manual's pages, in build/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} bin/netcleat man build/man

.PHONY: sbom
sbom: build ## bin/sbom.json: the modules that the programs are made of, as CycloneDX
	$(GO) run ./scripts/sbom bin/cni bin/netcleat >bin/sbom.json

.PHONY: package
package: ## The Debian package, the tarballs and the image for amd64, in build/package
	$(RELEASE) -archs amd64 -out $(CURDIR)/build/package

.PHONY: release
release: ## A release for all platforms, in build/release: docs/release.md
	$(RELEASE) -out $(CURDIR)/build/release

.PHONY: demo
demo: build ## Attach two containers, show what that makes, detach them (root)
	$(GO) run ./test/demo

.PHONY: demo-cluster
demo-cluster: build ## Three hosts that share one range of addresses, an etcd that loses a member, and a network across hosts with names (root; installs etcd-server)
	@scripts/test-deps iproute2 iputils-ping etcd-server
	$(GO) run ./test/cluster/demo

.PHONY: clean
clean: ## Remove what the build and the tests made here
	rm -rf bin build

##@ Test
.PHONY: test
test: install-deps ## Everything: build, lint, all tests as root and as a user, the demo, other kernels (root)
	$(GO) run ./test/all

.PHONY: unit
unit: ## All tests that this user may run: without root, those that need no namespace
	$(GO) test ./...

# Not among them: test/house and docs/schema, which read the repository and have go load all of it. What they
# find does not depend on the user.
.PHONY: test-user
test-user: ## The same as JSON, run by root as a user without privileges
	@$(GO) test -json -count=1 -timeout 30m -exec $(CURDIR)/scripts/as-user $$($(GO) list ./... | grep -v -e /test/house -e /docs/schema)

.PHONY: kernel
kernel: ## The tests of pkg and plugins, in namespaces of their own (root)
	$(GO) test ./pkg/... ./plugins/...

.PHONY: e2e
e2e: build ## Stories against the built binaries (root)
	$(GO) test ./test/e2e/... ./test/compat

.PHONY: house
house: ## The rules of the house
	$(GO) test ./test/house/...

.PHONY: test-root
test-root: kernel e2e ## The tests that need root, in this kernel

.PHONY: test-vm
test-vm: ## All plugins that make an interface, in Debian's kernel, booted in QEMU: no test may skip
	$(GO) run ./test/vm -kernel linux-image-amd64 \
		./plugins/ipvlan ./plugins/macvlan ./plugins/vlan ./plugins/host-device ./plugins/ptp ./plugins/tap ./plugins/vrf \
		./plugins/dummy ./plugins/bridge@VLAN ./pkg/nl ./pkg/link ./pkg/veth ./test/vm/selftest
	$(GO) run ./test/vm -kernel linux-image-amd64 -append ipv6.disable=1 ./test/vm/odd@IPv6
	$(GO) run ./test/vm -kernel linux-image-amd64 -without nf_tables ./test/vm/odd@NFTables

.PHONY: test-vm-all
test-vm-all: test-vm-nerdctl ## All tests in all kernels of test/vm/kernels.txt (an hour or two)
	$(GO) run ./test/vm ./pkg/... ./plugins/... ./test/vm/selftest

# There is no go in the machine: what the stories run is built before.
.PHONY: test-vm-nerdctl
test-vm-nerdctl: ## nerdctl's ipvlan network, in Debian's kernel (two minutes, after the builds)
	@scripts/reference
	@scripts/client nerdctl
	@mkdir -p build/e2e
	CGO_ENABLED=0 $(GO) build -o build/e2e ./cmd/cni ./cmd/netcleat ./test/e2e/peer
	$(GO) run ./test/vm -kernel linux-image-amd64 ./test/e2e/nerdctl@TestIPvlan

.PHONY: test-kube
test-kube: build package ## A node: kubelet with static pods on containerd, and CRI-O; both are built once (root)
	@scripts/client kubelet
	@scripts/client crio
	KUBE=built $(GO) test -count=1 -v -p 1 -timeout 30m ./test/e2e/kubelet ./test/e2e/crio

.PHONY: test-flannel
test-flannel: ## flannel in front of bridge, with etcd; flanneld is built once (root)
	@scripts/client flannel
	FLANNEL=built $(GO) test -count=1 -v -run Flannel ./test/overlay

.PHONY: test-release
test-release: install-deps ## A release: all platforms twice, packages in a Debian of their own, the image in containerd (root)
	RELEASE=all $(GO) test -count=1 -v -timeout 2h ./test/release

.PHONY: test-faults
test-faults: install-deps ## Kills, refusals, storms, the reference next to it, and failing etcd: one case in FAULTS (6: an hour on two cores, 1: five hours); PART=REGEXP: these tests of test/fault only (root)
	@failed=; for part in $(or $(foreach p,$(PART),'$(p)'),$(FAULT_PARTS)); do \
		FAULTS=$(FAULTS) $(GO) test -count=1 -v -timeout 3h -run "$$part" ./test/fault || failed="$$failed $$part"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }
	$(if $(PART),,FAULTS=$(CLUSTER_FAULTS) $(GO) test -count=1 -v -timeout 3h ./cmd/netcleat/clusterd)
	$(if $(PART),,FAULTS=$(CLUSTER_FAULTS) $(GO) test -count=1 -v -timeout 3h -run TestStorm ./test/cluster)

.PHONY: bench
bench: build ## Side by side with the reference; BENCH=REGEXP: these cases only (root)
	$(GO) run ./test/bench $(if $(BENCH),-bench '$(BENCH)')
	$(if $(BENCH),,@$(MAKE) -s bench-cluster bench-clients bench-names)

.PHONY: bench-cluster
bench-cluster: ## cluster-local next to host-local, new blocks, 16 hosts at once, and what 1,000 hosts cost (root)
	$(GO) test -run '^$$' -bench 'Steady|NewBlock' -benchtime 1x ./test/cluster
	$(GO) test -run '^$$' -bench 'Claims' -benchtime 20x ./cmd/netcleat/clusterd
	$(GO) test -run '^$$' -bench 'Hosts' -benchtime 1x ./cmd/netcleat/clusterd
	$(GO) test -run '^$$' -bench 'Overlay' -benchtime 5x ./test/overlay
	$(GO) test -run '^$$' -bench 'Program' -benchtime 5x ./cmd/netcleat/overlay

.PHONY: bench-names
bench-names: build ## Names: our server and plugin next to dnsmasq and containers/dnsname (root)
	NETCLEAT=$(CURDIR)/bin/netcleat $(GO) test -run '^$$' -bench 'Query|Alias|Rate' -benchtime 30000x -timeout 10m ./cmd/netcleat/dnsd
	NETCLEAT=$(CURDIR)/bin/netcleat $(GO) test -run '^$$' -bench ADD -benchtime 100x -timeout 10m ./cmd/netcleat/dnsd
	NETCLEAT=$(CURDIR)/bin/netcleat $(GO) test -run '^$$' -bench 'Burst|Memory' -benchtime 1x -timeout 10m ./cmd/netcleat/dnsd

.PHONY: bench-clients
bench-clients: build ## What users of runtimes wait for, ours and the reference in turns: nerdctl run, a pod by CRI, thirty by kubelet (root)
	@scripts/client kubelet
	$(GO) test -run '^$$' -bench Run -benchtime 10x -timeout 30m ./test/e2e/nerdctl ./test/e2e/containerd
	KUBE=built $(GO) test -run '^$$' -bench . -benchtime 3x -timeout 30m ./test/e2e/kubelet

.PHONY: golden
golden: ## Rewrite the expected output of the tests: read the diff before you commit it (root)
	UPDATE=1 $(GO) test ./...

.PHONY: fuzz
fuzz: ## Each fuzzer for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

##@ Tidy
.PHONY: lint
lint: $(LINTER) $(VULNCHECK) ## The linters; CONTRIBUTING.md has the reason for each. Known vulnerabilities, where the database answers
	$(LINTER) run ./...
	$(LINTER) fmt --diff
	@scripts/vulncheck $(VULNCHECK) || [ $$? = 4 ]

.PHONY: vet
vet: ## go vet, for the platform that GOARCH names
	CGO_ENABLED=0 $(GO) vet ./...

.PHONY: vulncheck
vulncheck: $(VULNCHECK) ## Known vulnerabilities in code that is called; fails where the database does not answer
	@scripts/vulncheck $(VULNCHECK) $(VULNPKGS)

.PHONY: fmt
fmt: $(LINTER) ## Format the code
	$(LINTER) fmt

##@ Set up
.PHONY: install-deps
install-deps: $(LINTER) $(VULNCHECK) ## Install what the tests need, and say what (Debian and Ubuntu, root)
	@scripts/test-deps
	@scripts/reference
	@scripts/client nerdctl

$(LINTER):
	@echo "build golangci-lint $(GOLANGCI) (a minute or three, once)"
	@mkdir -p build/tools
	@GOBIN=$(CURDIR)/build/tools/new $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv build/tools/new/golangci-lint $@ && rmdir build/tools/new

$(VULNCHECK):
	@mkdir -p build/tools
	@GOBIN=$(CURDIR)/build/tools/vuln $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)
	@mv build/tools/vuln/govulncheck $@ && rmdir build/tools/vuln

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
