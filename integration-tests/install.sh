#!/usr/bin/env bash
# Brings what the tests need: a JDK and Maven, and with them Apache Kafka; Chromium with its driver; PostgreSQL and a
# Python environment with clients and engines that are not ours; and for infra/test.sh an AWS API and a linter. (Terraform itself it only asks for.)
# Everything is kept in the cache folder, so that a second time costs nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lamina"
mkdir -p "$cache"

missing=()
command -v openssl >/dev/null || missing+=(openssl)
command -v chromedriver >/dev/null || missing+=(chromium chromium-driver)
command -v java >/dev/null || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "the tests need a JDK (17 or later), Maven, OpenSSL, Chromium with chromedriver, PostgreSQL (15 or later), and Python 3 with venv: install ${missing[*]} (Debian) or your system's packages for them" >&2
    exit 1
  fi
fi

kafka="$cache/kafka-4.1.0"
if [ ! -f "$kafka/complete" ]; then
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$kafka/lib" -DincludeScope=runtime
  touch "$kafka/complete"
fi

python="$cache/python"
if [ ! -f "$python/complete-2" ]; then
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check deltalake polars duckdb pyarrow confluent-kafka pandas requests
  touch "$python/complete-2"
fi

aws="$cache/aws"
if [ ! -f "$aws/complete" ]; then
  python3 -m venv "$aws"
  "$aws/bin/pip" install --quiet --disable-pip-version-check 'moto[server]==5.2.5'
  touch "$aws/complete"
fi

if ! command -v tflint >/dev/null && [ ! -x "$cache/bin/tflint" ]; then
  command -v go >/dev/null || { echo "the tests need TFLint 0.60 or later, or Go to build it with" >&2; exit 1; }
  GOBIN="$cache/bin" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' github.com/terraform-linters/tflint@v0.64.0
fi

command -v terraform >/dev/null || {
  echo "the tests need Terraform 1.11 or later: see https://developer.hashicorp.com/terraform/install" >&2
  exit 1
}
