# SPDX-License-Identifier: Apache-2.0
# libfuse.sh DIR: libfuse's examples (example/), headers (include/) and static library (libfuse3.a), from Debian.
dir=$1
[ ! -e "$dir/libfuse3.a" ] || exit 0
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/sources" "$work/new"
# The host's own Debian sources, with deb-src beside deb.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
	[ ! -s "$file" ] || sed -E 's/^Types:.*/Types: deb deb-src/; s/^deb (.*)/deb \1\ndeb-src \1/' "$file" >"$work/apt/sources/${file##*/}"
done
cd "$work"
apt() { apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/apt/sources" -o Dir::State::lists="$work/apt/lists" \
	-o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root "$@"; }
apt update
apt source --download-only fuse3
apt download libfuse3-dev
tar -xf fuse3_*.orig.tar.?z -C new --strip-components=1 --wildcards '*/example/*'
dpkg-deb -x libfuse3-dev_*.deb dev
mv dev/usr/include/fuse3 new/include
mv dev/usr/lib/*/libfuse3.a new/
chmod 755 new
rm -rf "$dir"
mv new "$dir"
