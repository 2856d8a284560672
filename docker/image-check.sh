#!/usr/bin/env bash
# Builds the image without a registry or a daemon and tries it out as it is meant to run: not root, nothing but /data
# and /tmp writable, no new privileges. The base is a fresh minimal system of this host's own Debian release, made by
# debootstrap from the mirrors that apt uses here (kept for a week in .cache/image-check).
#
# `buildah run` cannot make the root read-only, so the last step mounts the image itself and starts it by chroot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

started=$SECONDS
say() { printf 'image-check [%3d s]: %s\n' "$((SECONDS - started))" "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

[[ $EUID -eq 0 ]] || fail "debootstrap and mounts need root. Run it as root, or build with: make image"
for tool in buildah debootstrap unshare setpriv python3; do
  command -v "$tool" >/dev/null || fail "$tool is missing. On Debian: apt-get install buildah debootstrap util-linux python3"
done

# --- where it works, and how it cleans up -------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/image-check.XXXXXX")
server=
buildah() { command buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"; }
clean_up() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  buildah umount --all >/dev/null 2>&1 || true
  # A file system still mounted below must never be emptied by rm.
  rm -rf --one-file-system "$work" || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- the base: what apt here would install, in a folder of its own ------------------------------------------

# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:?this host does not name its release}")
base_tar=".cache/image-check/base-$suite-$(dpkg --print-architecture)-$(date +%G-%V).tar"
if [[ ! -f $base_tar ]]; then
  # apt's own reading of sources.list and sources.list.d, so every format and mirror that works here works there.
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$suite" '$1 == suite && $2 == "main" && !found { print $3; found = 1 }')
  [[ -n $mirror ]] || fail "apt has no source for $suite main; look at /etc/apt/sources.list(.d) and run apt-get update"
  say "making a base of $suite with debootstrap"
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
    "$suite" "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 || {
    tail -n 20 "$work/debootstrap.log" >&2
    fail "debootstrap failed; its last lines are above"
  }
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/* "$work"/base/usr/share/{doc,man,locale}/*
  mkdir -p "$(dirname "$base_tar")"
  rm -f .cache/image-check/base-*.tar
  tar -C "$work/base" --one-file-system -cf "$work/base.tar" .
  mv "$work/base.tar" "$base_tar"
  rm -rf --one-file-system "$work/base"
fi
container=$(buildah from scratch)
buildah add --quiet "$container" "$base_tar" / >/dev/null
buildah commit --quiet "$container" localhost/image-check-base >/dev/null
buildah rm "$container" >/dev/null
say "the base is ready"

# --- how pip reaches packages from here, handed to the build as secrets -------------------------------------

volumes=()
while IFS= read -r folder; do volumes+=(--volume "$folder:$folder:ro"); done < <(
  python3 - "$work/pip.conf" "$work/ca.pem" <<'PYTHON'
"""Writes a pip.conf that says what pip's configuration and environment say here; prints folders that it needs."""
import ast
import os
import pathlib
import shutil
import subprocess
import sys

KEYS = {"index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "retries", "cert"}
pip_conf, ca_pem = map(pathlib.Path, sys.argv[1:])
listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
found = {}
for line in listing.stdout.splitlines():
    name, _, value = line.partition("=")
    key = name.rpartition(".")[2].replace("_", "-")
    if not name.startswith(":env:") and key in KEYS:
        found[key] = str(ast.literal_eval(value))
for name, value in os.environ.items():
    key = name.removeprefix("PIP_").lower().replace("_", "-").removeprefix("default-")
    if name.startswith("PIP_") and key in KEYS:
        found[key] = value
bundle = found.pop("cert", None) or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
ca_pem.touch(0o600)
if bundle and os.path.isfile(bundle):
    shutil.copyfile(bundle, ca_pem)
    found["cert"] = "/run/secrets/ca.pem"
links = found.pop("find-links", "").split()
folders = [link for link in links if os.path.isdir(link)]
if kept := [link for link in links if "://" in link] + folders:
    found["find-links"] = " ".join(kept)
pip_conf.touch(0o600)
pip_conf.write_text("[global]\n" + "".join(f"{key} = {' '.join(value.split())}\n" for key, value in found.items()))
print("\n".join(folders), end="\n" if folders else "")
PYTHON
)

# --- the image ----------------------------------------------------------------------------------------------

say "building the image"
# format docker: the OCI format has no place for HEALTHCHECK.
buildah bud --quiet --isolation chroot --format docker --pull-never --file docker/Dockerfile \
  --build-arg BASE_IMAGE=localhost/image-check-base \
  --secret "id=pip.conf,src=$work/pip.conf" --secret "id=ca.pem,src=$work/ca.pem" \
  ${volumes[@]+"${volumes[@]}"} --tag localhost/image-check . >"$work/build.log" 2>&1 || {
  tail -n 40 "$work/build.log" >&2
  fail "the build failed; its last lines are above"
}

container=$(buildah from --pull-never localhost/image-check)
root=$(buildah mount "$container")
config() { # config FIELD: a field of the image's configuration, one value a line
  buildah inspect --type image localhost/image-check | python3 -c '
import json, sys
value = json.load(sys.stdin)["Docker"]["config"]
for name in sys.argv[1].split("."):
    value = value[name]
print(*(value if isinstance(value, list) else [value]), sep="\n")' "$1"
}
user=$(config User)
[[ $user == 10001:10001 ]] || fail "the image runs as '$user', not as 10001:10001"
[[ ! -s $root/run/secrets/pip.conf && ! -s $root/run/secrets/ca.pem ]] || fail "a build secret is in the image"
say "built: $(du --apparent-size -sm "$root" | cut -f1) MB, of which ours $(du --apparent-size -sm "$root/opt/plugin-server" | cut -f1) MB"

# --- plugin-server check, by buildah ------------------------------------------------------------------------

say "plugin-server check"
buildah run --isolation chroot --user "$user" "$container" -- plugin-server check || fail "plugin-server check failed"

# --- plugin-server run, with a read-only root ---------------------------------------------------------------

mapfile -t environment < <(config Env)
mapfile -t health_check < <(config Healthcheck.Test)
[[ ${health_check[0]} == CMD ]] || fail "the health check is not in exec form"
mapfile -t command_line < <(config Entrypoint; config Cmd)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
environment+=("PLUGIN_SERVER_HTTP_PORT=$port" "PLUGIN_SERVER_PROJECTS_FILE=/srv/configs/projects.yaml")
mkdir -p "$root/srv/configs" "$root/srv/examples"

# Each `exec` keeps the process id, so a signal to the job is a signal to the server. As in a container started with
# read_only, tmpfs, no-new-privileges and without capabilities (a user that is not root has none after chroot).
# shellcheck disable=SC2016
unshare --mount bash -euc '
  root=$1 repository=$2 user=$3; shift 3
  mount --bind "$root" "$root"
  mount --bind "$repository/configs" "$root/srv/configs"
  mount --bind "$repository/examples" "$root/srv/examples"
  mount -o remount,bind,ro "$root"
  mount -o remount,bind,ro "$root/srv/configs"
  mount -o remount,bind,ro "$root/srv/examples"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/tmp"
  mount -t tmpfs -o mode=0700,uid=10001,gid=10001,size=256m tmpfs "$root/data"
  exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" /usr/bin/env --ignore-environment --chdir=/srv "$@"
' - "$root" "$PWD" "$user" "${environment[@]}" "${command_line[@]}" >"$work/server.log" 2>&1 &
server=$!

ask_health() { chroot --userspec="$user" --groups= "$root" /usr/bin/env --ignore-environment "${environment[@]}" "${health_check[@]:1}"; }
for attempt in {1..60}; do
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; fail "the server stopped by itself; its output is above"; }
  if ask_health 2>"$work/health.log"; then break; fi
  [[ $attempt -lt 60 ]] || { cat "$work/server.log" "$work/health.log" >&2; fail "no health within 30 s; the output is above"; }
  sleep 0.5
done
say "healthy with a read-only root as user ${user}"

stopping=$SECONDS
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
[[ $status -eq 0 ]] || { cat "$work/server.log" >&2; fail "the server ended with status $status after SIGTERM; its output is above"; }
[[ $((SECONDS - stopping)) -le 10 ]] || fail "the server took $((SECONDS - stopping)) s to stop after SIGTERM; it has 10"
say "stopped by SIGTERM in $((SECONDS - stopping)) s; all is well"
