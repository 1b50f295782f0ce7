# Cura EHR Sync. `make` alone prints help.

# One setting for every build shares one build cache, and makes the same static programs everywhere.
export CGO_ENABLED := 0
export DATA OUTPUT FAULT

.DEFAULT_GOAL := help
.PHONY: help demo profiles test soak bench lint fmt generate tools postgres build clean

# Set-up talks on standard error: `make demo OUTPUT=json` has one JSON object on standard output and nothing else.

demo: tools postgres build ## run the whole stack and onboard a sandbox hospital [DATA=DIR EXIT=1 OUTPUT=json FAULT=auth]
	@exec bin/starter dev --demo $${DATA:+--data "$$DATA"} $(if $(filter 1 true yes,$(EXIT)),--exit) $${OUTPUT:+--output "$$OUTPUT"} $${FAULT:+--fault "$$FAULT"} $(ARGS)

profiles: tools postgres build ## onboard a sandbox EHR of each vendor, faults on, and compare it with Cura [OUTPUT=json]
	@exec bin/starter dev --profiles $${OUTPUT:+--output "$$OUTPUT"} $(ARGS)

test: tools postgres build ## run every test; closes with the skipped ones and the totals
	@bin=$$(tools/build.sh test) && exec "$$bin/gotestsum" --format pkgname --format-hide-empty-pkg -- -shuffle=on -timeout 30m ./...

soak: tools postgres build ## run the crash and fault campaigns at full size
	@CURA_SOAK=1 exec go test -count=1 -v -timeout 180m ./e2e/...

bench: tools postgres build ## measure speed, memory and CPU by stage, and write docs/BENCHMARKS.md [CURA_BENCH_FULL=1: a million resources too]
	@CURA_BENCH_REPORT=$(CURDIR)/docs/BENCHMARKS.md exec go test -run '^$$' -bench . -benchtime 1x -timeout 120m ./...

lint: ## check format, vet, golangci-lint, workflowcheck, govulncheck
	@exec tools/lint.sh

fmt: ## format every Go file
	@bin=$$(tools/build.sh lint) && exec "$$bin/golangci-lint" fmt

generate: ## write the generated files again, such as mappings/MAPPINGS.md
	@exec go generate ./...

tools: ## build the Temporal server, when it's missing
	@exec tools/build.sh temporal >/dev/null

postgres: ## find PostgreSQL >= 15, or install it
	@exec tools/postgres.sh

build: ## build bin/starter and bin/worker
	@exec go build -o bin/ ./starter ./worker

clean: build ## stop what a killed run has left, and remove .cura and bin
	@bin/starter dev --clean
	@rm -rf bin

help: ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
