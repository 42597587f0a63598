# Shared by the scripts here: saying what happens, and installing Debian packages when we may.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() {
	printf '\033[1;31merror:\033[0m %s\n' "$1" >&2
	shift
	for line in "$@"; do note "$line"; done
	exit 1
}

# Runs something as root; only after `can_install`, which has asked for the password.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# can_install WHAT...: whether we are root or may become it. Asks for a password only where somebody can type one, says
# what for, and asks no second time where the answer was no.
can_install() {
	command -v apt-get >/dev/null 2>&1 || return 1
	[ "$(id -u)" -eq 0 ] && return 0
	command -v sudo >/dev/null 2>&1 || return 1
	sudo -n true 2>/dev/null && return 0
	[ -t 0 ] && [ -z "${CI:-}${REFUSED:-}" ] || return 1
	sudo -v -p "[sudo] password for %p, to install $*: " && return 0
	REFUSED=yes
	return 1
}

# install PACKAGE...: from the distribution, saying so. Fails (returns 1) when it is not possible.
install() {
	can_install "$@" || return 1
	say "installing from the distribution: $*"
	apt_get install "$@" && return 0
	note "refreshing the package lists first"
	apt_get update && apt_get install "$@"
}

apt_get() {
	local action=$1
	shift
	local options=(-qq -o Dpkg::Use-Pty=0)
	[ "$action" = install ] && options+=(-y --no-install-recommends)
	as_root env DEBIAN_FRONTEND=noninteractive apt-get "$action" "${options[@]}" "$@" </dev/null >&2
}
