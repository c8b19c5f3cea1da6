#!/bin/sh
# Builds the .deb and the .rpm. Two builds of one commit give the same bytes.
#
#	VERSION  as in semver.org; by default that of the commit
#	OUT      where packages go, by default bin
set -eu
umask 022
cd "$(dirname "$0")/../.."
GO=${GO:-go}
NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.2
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
: "${VERSION:=0.1.0-dev.$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd)+$(git rev-parse --short=12 HEAD)}"
GOARCH=$($GO env GOARCH)
export SOURCE_DATE_EPOCH VERSION GOARCH
: "${OUT:=bin}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/man" "$stage/completion" "$stage/doc"
CGO_ENABLED=0 $GO build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o "$stage/postern" ./cmd/postern
$GO test ./cmd/postern -count=1 -run '^TestManual$' -args -manual "$stage/man" -manual-date "$SOURCE_DATE_EPOCH" >/dev/null
gzip -n -9 "$stage"/man/*
"$stage/postern" completion bash >"$stage/completion/postern"
"$stage/postern" completion zsh >"$stage/completion/_postern"
"$stage/postern" completion fish >"$stage/completion/postern.fish"
cp deploy/postern.yaml deploy/systemd/postern.service deploy/packages/default deploy/packages/sysusers.conf "$stage"
cp -r deploy/packages/scripts docs/examples "$stage"
cp README.md docs/*.md "$stage/doc"
gzip -n -9 <CHANGELOG.md >"$stage/doc/changelog.gz"
cp LICENSE "$stage/doc/copyright"
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
chmod -R u=rwX,go=rX "$stage"

config=$(pwd)/deploy/packages/nfpm.yaml
cd "$stage"
for format in deb rpm; do
	$GO run $NFPM package --config "$config" --packager $format --target "$OUT/"
done
