# transship: `make demo` shows the main job, `make test` passes the tests. Both install what they need.
SHELL := /bin/bash
GO ?= go
BIN := bin
# `make demo LAB=full` runs the demo on Swift and Ceph, with two edges.
LAB ?= small
# The lab's S3-like clients and registries break on a set AWS_CA_BUNDLE; nothing here uses AWS.
unexport AWS_CA_BUNDLE

.PHONY: all build devserver packages packages-lab demo up down lab lab-down test unit model lint lab-test chaos cutovers bench histories clean

all: build

build: ## bin/transship and bin/transship-worker
	$(GO) build -o $(BIN)/transship ./starter
	$(GO) build -o $(BIN)/transship-worker ./worker

devserver: ## Temporal with its UI in one process; the first build takes minutes
	cd devserver && $(GO) build -o ../$(BIN)/transship-devserver .

packages: ## nginx and docker-registry from Debian, nothing autostarted
	@scripts/packages nginx=1.22.* docker-registry=2.8.2*

packages-lab: ## Swift, Ceph and what else the full lab runs, nothing autostarted
	@scripts/packages swift=2.30.* swift-proxy=2.30.* swift-account=2.30.* swift-container=2.30.* swift-object=2.30.* memcached=1.6.* \
	  ceph-mon=16.2.* ceph-mgr=16.2.* ceph-osd=16.2.* radosgw=16.2.* ceph-common=16.2.* ngircd=26.* prometheus=2.42.* skopeo=1.9.* rclone=1.60.* \
	  redis-server=5:7.0.* sudo=1.9.* buildah=1.28.*

demo: packages $(if $(filter full,$(LAB)),packages-lab) build devserver ## one prefix migrates, another rolls back, clients at work all the while
	$(GO) run ./lab/demo -lab $(LAB) demo

up: packages build devserver ## the same stack, left running
	$(GO) run ./lab/demo up

down: ## stop what `make up` left running
	$(GO) run ./lab/demo down

lab: packages packages-lab build devserver ## all of it, left running: Swift, Ceph, two edges, Prometheus, IRC
	$(GO) run ./lab/demo -lab full up

lab-down: down ## stop what `make lab` left running

test: lint unit model lab-test ## everything CI runs

lint:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not gofmt clean: $$files"; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags lab ./...
	$(GO) tool -modfile=tools/go.mod staticcheck -tags lab ./...
	$(GO) tool -modfile=tools/go.mod workflowcheck -test=false -config tools/workflowcheck.yaml ./workflows/...

unit: ## seconds, no servers but its own
	$(GO) test -race ./...
	cd tools && $(GO) test ./...

model: ## the cutover protocol through 100,000 random schedules of crashes, pauses and lost messages, and broken protocols that must be caught
	$(GO) test -count=1 -run 'TestNoScheduleBreaksTheCutover|TestHolesOfTheProtocol|TestBrokenProtocolsAreCaught' ./internal/edge -model.schedules 100000

# `make unit` runs the packages that have no test of their own here.
lab-test: packages packages-lab build devserver ## real stores, registries, nginx and Temporal; one Swift and one Ceph for all packages
	cd devserver && $(GO) test ./...
	$(GO) build -o $(BIN)/stores ./lab/stores
	$(BIN)/stores run -- $(GO) test -race -tags lab -count=1 -p 1 -timeout 45m $$(grep -rl '^//go:build lab' --include='*_test.go' . | xargs -n1 dirname | sort -u)

# How many schedules, cutovers there and back, and how large a blob the two targets below go up to.
SCHEDULES ?= 200
CUTOVERS ?= 20
LARGEST ?= 1GiB

chaos: packages packages-lab build devserver ## random schedules of dying, hanging and cut off processes in migrations and rollbacks under load; for the night
	$(GO) test -race -tags lab -count=1 -timeout 12h -run 'TestChaos$$' -v ./lab -schedules $(SCHEDULES)

cutovers: packages packages-lab build devserver ## a prefix is flipped and rolled back 20 times under load; for the night
	$(GO) test -race -tags lab -count=1 -timeout 3h -run TestTwentyFlipsAndTwentyRollbacksUnderLoad -v ./lab -cutovers $(CUTOVERS) -largest $(LARGEST)

bench: packages packages-lab build devserver ## against skopeo, crane, regsync and rclone; takes about an hour
	cd tools && $(GO) build -o ../$(BIN)/bench-tools/crane github.com/google/go-containerregistry/cmd/crane
	GOBIN=$(CURDIR)/$(BIN)/bench-tools $(GO) install github.com/regclient/regclient/cmd/regsync@v0.11.7
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...
	$(GO) build -o $(BIN)/bench ./lab/bench
	$(BIN)/bench -rounds 2 -out BENCHMARKS.md
	$(GO) run ./lab/freeze >> BENCHMARKS.md
	$(GO) test -tags lab -run '^$$' -bench 'Table|Request' ./internal/edge

histories: packages build devserver ## record the workflow histories that the replay test checks
	$(GO) test -tags lab -count=1 -run TestRecordHistories ./lab -record

clean:
	rm -rf $(BIN) .run
