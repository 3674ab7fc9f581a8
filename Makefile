# make demo      install what is missing, then show the whole journey: realm, two hosts, tunnel, traffic, proof
# make test      install what is missing, then ruff, mypy and every test
# make bench     install what is missing, others to be measured beside us too, then measure keying, engine and tunnel
# make sanitize  what tests the engine and lwIP, compiled for AddressSanitizer and UBSan; a part of make test
# make races     what tests its threads, with one for ThreadSanitizer
# make docs      build the pages of docs/ into build/site, with every link looked at
# make image     build kinkvpn:latest, for containers, with podman or docker
# make files     for a kinkvpn that is installed: units, account, manual page, completion, below DESTDIR. INSTALLED is the
#                virtual environment that it is in, with what [manual] brings; without it, .venv, which is made
# make clean     remove .venv and everything else that these made in the clone
#
# System packages come from apt, and only those that are not there; Python packages from pip, into .venv. The second
# run finds all of it in place and starts at once; a changed pyproject.toml installs again, and what the engine is
# compiled of compiles it again.

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet

# What python-pytun, gssapi and our engine are compiled with; the KDC; namespaces, ping and capture for the laboratory.
PACKAGES := gcc libc6-dev libssl-dev libkrb5-dev krb5-kdc krb5-admin-server iproute2 iputils-ping tcpdump
# Intel's AES, for processors of that family.
FASTER := libipsec-mb-dev
# The clock of one process; kinit, with a password and with a certificate; a NAT; an Active Directory domain controller,
# of which the tests run KDC and LDAP, and what makes accounts there; what runs the Wireshark dissector; what measures a tunnel.
TESTED := faketime krb5-user krb5-pkinit nftables samba samba-dsdb-modules samba-ad-provision msktutil tshark iperf3 ethtool bubblewrap
# What judges our units, and runs them; and our manual page; shells that complete.
TESTED += systemd systemd-container mandoc zsh fish
# What checks metrics and alerts; a browser for the status page.
TESTED += prometheus chromium chromium-driver
# What asks the local API in its documentation, and through tunnels; containers for anybody, and a Debian for
# the image to be made of; sysctl, as guides type it.
TESTED += curl bubblewrap podman uidmap mmdebstrap procps
# What the quickstart installs, and installs with: what is here already is not fetched for each host.
TESTED += pipx libpython3-dev
# A Linux kernel that is an ordinary process, and what loads its modules. Not every machine that has the others has it.
KERNEL := user-mode-linux kmod
# Other VPNs, and what loads a tunnel.
MEASURED := charon-systemd libcharon-extra-plugins libstrongswan-standard-plugins \
	openvpn wireguard-go wireguard-tools iperf3 ethtool
# Debian splits its own Python; any other has these two inside.
PACKAGES += $(shell $(PYTHON) -c 'import sys; sys.base_prefix == "/usr" and print("libpython3-dev python3-venv")')

NATIVE := esp/native/_core$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
# Engine and lwIP for AddressSanitizer and UBSan, in a copy of the packages that goes before them. Python leaks by design.
SANITIZED := $(VENV)/sanitized
RACED := $(VENV)/raced
INSTRUMENTED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/pytest -p no:cacheprovider \
	-o pythonpath="$(SANITIZED) tests" -k "(native or fuzz_engine or lwip) and not (unprotect or native_offload)"

# What writes the manual page and the completion.
INSTALLED = $(VENV)
# Where a distribution has them (file-hierarchy(7)).
SHARE = $(DESTDIR)/usr/share
SYSTEM = $(DESTDIR)/usr/lib

.PHONY: files image demo test bench sanitize races docs install clean root

demo: root $(NATIVE)
	$(BIN)/kinkvpn demo

# Each daemon that a test starts, and each worker of pytest, would compile all of this again, and pytest's assertions too.
unexport PYTHONDONTWRITEBYTECODE

# Here it has to compile; elsewhere it may be missing.
test: export ESP_BUILD = native
test: $(VENV)/test.installed $(NATIVE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal -m "not root and not kdc and not build and not fuzz and not programs"
	$(BIN)/pytest -n 2 --dist worksteal -m "(kdc or build or fuzz or programs) and not root"
ifeq ($(shell id -u),0)
	$(BIN)/pytest -n 2 --dist loadfile -m root
else
	@echo "make test: not root, so the tests that need network namespaces (marked root) are left out"
endif
	@$(MAKE) --no-print-directory sanitize

bench: root $(VENV)/bench.installed $(NATIVE)
	$(BIN)/python -m bench keying
	$(BIN)/python -m bench create
	$(BIN)/python -m bench engine
	$(BIN)/python -m bench datapath --quick

sanitize: $(VENV)/test.installed
	ESP_SANITIZE=address,undefined ESP_BUILD=native $(BIN)/python setup.py --quiet build --build-lib $(SANITIZED)
	$(INSTRUMENTED) -n 2 --dist worksteal -m "not root" tests/esp tests/fuzz tests/kinkvpn/proxy/lwip
ifeq ($(shell id -u),0)
	$(INSTRUMENTED) -m root tests/esp
endif

# Not a part of make test: ThreadSanitizer wants its addresses where it looks for them, and not every container may say so.
races: $(VENV)/test.installed
	ESP_SANITIZE=thread ESP_BUILD=native $(BIN)/python setup.py --quiet build --build-lib $(RACED)
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" TSAN_OPTIONS=exitcode=1 setarch --addr-no-randomize $(BIN)/pytest -s \
		-p no:cacheprovider -o pythonpath="$(RACED) tests" \
		$(addprefix tests/esp/native/test_,lanes.py sad.py ring.py dataplane.py) $(if $(filter 0,$(shell id -u)),\
		tests/esp/native/test_queues.py)

docs: $(VENV)/docs.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "kinkvpn: build/site/index.html"

$(VENV)/docs.installed: $(VENV)/demo.installed
	@$(PIP) install --editable '.[build,docs]'
	@touch $@

files: $(filter $(VENV)/%,$(INSTALLED)/demo.installed)
	install -D -m 644 -t $(SYSTEM)/systemd/system contrib/systemd/*.service contrib/systemd/*.socket
	install -D -m 644 contrib/systemd/kinkvpn.sysusers $(SYSTEM)/sysusers.d/kinkvpn.conf
	install -D -m 644 contrib/systemd/kinkvpn.tmpfiles $(SYSTEM)/tmpfiles.d/kinkvpn.conf
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/vendor-completions \
		$(SHARE)/fish/vendor_completions.d
	$(INSTALLED)/bin/argparse-manpage --module kinkvpn.cli --function parser --prog kinkvpn --project-name kinkvpn \
		--version "$$($(INSTALLED)/bin/python -c 'import kinkvpn; print(kinkvpn.__version__)')" --manual-title "User Commands" \
		--description "IPsec in userspace, keyed by Kerberos" --output $(SHARE)/man/man1/kinkvpn.1
	sed -i -e '1s/\\-/-/g' -e 's/^\.SH COMMENTS$$/.SH EXAMPLES\n.nf/' $(SHARE)/man/man1/kinkvpn.1
	$(INSTALLED)/bin/kinkvpn completion bash >$(SHARE)/bash-completion/completions/kinkvpn
	$(INSTALLED)/bin/kinkvpn completion zsh >$(SHARE)/zsh/vendor-completions/_kinkvpn
	$(INSTALLED)/bin/kinkvpn completion fish >$(SHARE)/fish/vendor_completions.d/kinkvpn.fish

# The health check is Docker's: OCI's format has no place for it.
image:
	@if command -v podman >/dev/null; then set -- podman build --format docker; \
	elif command -v docker >/dev/null; then set -- docker build; \
	else echo "make image: neither podman nor docker is there: apt-get install podman" >&2; exit 2; fi; \
	"$$@" --tag kinkvpn --file contrib/container/Containerfile .

root: # before a minute of installing
	@test "$$(id -u)" = 0 || \
		{ echo "make $(MAKECMDGOALS): needs root for namespaces and TUN devices: run it with sudo" >&2; exit 2; }

install: $(VENV)/demo.installed

$(VENV)/demo.installed: pyproject.toml .ci/debian-packages
	@test -n "$(PYTHON)" || { echo "kinkvpn needs Python 3.11 or later: apt-get install python3" >&2; exit 2; }
	@.ci/debian-packages $(PACKAGES)
	@.ci/debian-packages $(FASTER) || echo "kinkvpn: no ipsec-mb for this machine: OpenSSL alone seals and opens"
	@echo "kinkvpn: installing Python packages into $(VENV) by pip (a minute or two: gssapi is compiled)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[build]'
	@touch $@

$(NATIVE): setup.py $(foreach kind,c h pyx pxi,$(wildcard esp/native/*.$(kind) kinkvpn/proxy/lwip/*.$(kind))) | $(VENV)/demo.installed
	$(BIN)/python setup.py --quiet build_ext --inplace

$(VENV)/test.installed: $(VENV)/demo.installed Makefile .ci/debian-unpacked
	@.ci/debian-packages $(TESTED)
	@.ci/debian-packages $(KERNEL) || echo "kinkvpn: no User Mode Linux for this machine: its tests will be skipped"
	@.ci/debian-unpacked $(VENV)/heimdal heimdal heimdal-kdc heimdal-clients
	@.ci/debian-unpacked $(VENV)/freeipa - freeipa-client
	@echo "kinkvpn: installing the tools of the tests into $(VENV) by pip"
	@$(PIP) install --editable '.[build,test]'
	@touch $@

$(VENV)/bench.installed: $(VENV)/demo.installed Makefile
	@.ci/debian-packages $(MEASURED)
	@echo "kinkvpn: installing what drives strongSwan and what draws into $(VENV) by pip"
	@$(PIP) install --editable '.[build,bench]'
	@touch $@

clean:
	rm -rf $(VENV) build build-* dist esp/native/*.so esp/native/missing.txt kinkvpn/proxy/lwip/*.so \
		kinkvpn/proxy/lwip/missing.txt *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
