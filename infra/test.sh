#!/usr/bin/env bash
# Tests the Terraform modules: format, validity, lints, each module's own tests; then all four are applied for real
# against an AWS API on loopback, one layer is changed at a time, and everything is destroyed again.
#
# Needs Terraform with its AWS provider, and what integration-tests/install.sh brings: TFLint, and moto as that API.
#   TF_PLUGIN_DIR     where the provider is (a filesystem mirror), if it is neither where Terraform looks nor to be fetched
#   LAMINA_TASKS_OUT  folder to write each layer's containers to, as <layer>.json: what the processes are told
set -euo pipefail
cd "$(dirname "$0")"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lamina"
python="$cache/aws/bin/python"
export PATH="$PATH:$cache/bin"
modules=(foundation batch-layer speed-layer serving-layer)
layers=(batch-layer speed-layer serving-layer)

step() { printf '\n== infra: %s (%ds)\n' "$1" "$SECONDS"; }
fail() { printf 'infra: %s\n' "$*" >&2; exit 1; }

work=$(mktemp -d)
api=
stop() {
  [ -z "$api" ] || kill "$api" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

step "what is needed"
[ -f "${TF_CLI_CONFIG_FILE:-}" ] || export TF_CLI_CONFIG_FILE=/dev/null
command -v terraform >/dev/null ||
  fail "terraform is missing: install Terraform 1.11 or later (https://developer.hashicorp.com/terraform/install)"
command -v tflint >/dev/null && [ -x "$python" ] ||
  fail "TFLint or moto is missing: run integration-tests/install.sh"
terraform version -json | "$python" -c 'import json, sys; print("Terraform", json.load(sys.stdin)["terraform_version"])'
tflint --version

# The work is done in a copy, with the examples that the catalog is deployed from, so that files can be changed.
mkdir "$work/examples"
cp -R ../infra "$work/infra"
cp -R ../examples/sales "$work/examples/sales"
cd "$work/infra"

# Credentials of nobody, for an API that asks for none; and no settings of the user's that lead elsewhere.
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1 AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none \
  AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_MAX_ATTEMPTS=2 \
  CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0 TF_CLI_ARGS=-no-color
unset AWS_PROFILE AWS_SESSION_TOKEN TF_WORKSPACE TF_DATA_DIR TF_PLUGIN_CACHE_DIR

# A provider that lies on this machine is taken from there; otherwise Terraform looks where it always does.
if [ -z "${TF_PLUGIN_DIR:-}" ]; then
  found=$(find /opt /usr/local /usr/share /usr/lib /var/lib "$HOME" -xdev -maxdepth 9 -type f \
    -path '*/registry.terraform.io/hashicorp/aws/*/terraform-provider-aws_v5*' -print -quit 2>/dev/null || true)
  TF_PLUGIN_DIR=${found%/registry.terraform.io/*}
fi
[ -z "$TF_PLUGIN_DIR" ] || export TF_CLI_ARGS_init="-plugin-dir=$TF_PLUGIN_DIR"

# Runs terraform in a module; what it prints is shown if it fails.
tf() {
  local module=$1 log
  shift
  log=$(mktemp "$work/$module.XXXXXX.log")
  terraform -chdir="$module" "$@" >"$log" 2>&1 || { echo "terraform $* in $module:" >&2; cat "$log" >&2; return 1; }
  grep -E '^(Apply complete|Destroy complete|Success! [T0-9])' "$log" | sed "s/^/$module: /" || true
}

# Runs a function for each of some modules at once, and fails if one of them does.
each() {
  local function=$1 jobs=() job failed=0
  shift
  for module in "$@"; do
    "$function" "$module" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return "$failed"
}

init() {
  tf "$1" init -backend-config="bucket=state" -backend-config="key=$1" -backend-config="region=eu-west-1" \
    -backend-config="use_lockfile=true" -backend-config="use_path_style=true" \
    -backend-config="skip_requesting_account_id=true" || {
    echo "infra: Terraform found no AWS provider 5.100 or a later 5.x: connect to its registry, or have" >&2
    echo "infra: \`terraform providers mirror DIR\` make a mirror elsewhere and set TF_PLUGIN_DIR=DIR here" >&2
    return 1
  }
}
validate() { tf "$1" validate; }
unit() { tf "$1" test -var-file=examples/production.tfvars; }
apply() { tf "$1" apply -auto-approve -var-file=examples/development.tfvars; }
destroy() { tf "$1" destroy -auto-approve -var-file=examples/development.tfvars; }

# Fails unless a module's plan shows nothing to do.
unchanged() {
  local log="$work/$1.plan" code=0
  terraform -chdir="$1" plan -detailed-exitcode -var-file=examples/development.tfvars >"$log" 2>&1 || code=$?
  [ "$code" = 0 ] || { echo "the plan of $1 should show nothing:" >&2; cat "$log" >&2; return 1; }
  echo "$1: the plan shows nothing"
}

# Prints what a module's plan would do: an action and an address a line.
changes() {
  tf "$1" plan -out="$work/$1.changes" -var-file=examples/development.tfvars >/dev/null
  terraform -chdir="$1" show -json "$work/$1.changes" | "$python" -c '
import json, sys
for change in json.load(sys.stdin)["resource_changes"]:
    if change["change"]["actions"] != ["no-op"] and change["mode"] == "managed":
        print("-then-".join(change["change"]["actions"]), change["address"])' | sort
}

step "format"
terraform fmt -check -diff -recursive
step "lint"
for module in "${modules[@]}" modules/layer; do tflint --chdir="$module" --config="$PWD/.tflint.hcl" --no-color; done

step "tables of inputs and outputs"
"$python" tests/readme.py --check "${modules[@]}"

step "an AWS API on 127.0.0.1:$port"
MOTO_ECS_SERVICE_RUNNING=1 "$python" tests/aws.py "$port" >"$work/api.log" 2>&1 &
api=$!
"$python" - <<'PYTHON' || { cat "$work/api.log" >&2; fail "the AWS API did not start within 60 s"; }
import os, sys, time, urllib.request
import boto3

deadline = time.monotonic() + 60
while True:
    try:
        urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/moto-api/data.json").close()
        break
    except OSError:
        if time.monotonic() > deadline:
            sys.exit(1)
        time.sleep(0.1)
boto3.client("s3").create_bucket(Bucket="state", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
PYTHON

step "init and validate"
each init "${modules[@]}"
each validate "${modules[@]}"

# Much of applying the foundation is waiting, which the modules' tests can fill.
step "the modules' tests; meanwhile, apply the foundation"
apply foundation &
foundation=$!
each unit "${modules[@]}"
wait "$foundation"

step "apply the layers, all three at once"
certificate=$("$python" -c 'import boto3; print(boto3.client("acm").request_certificate(DomainName="lamina.example")["CertificateArn"])')
sed -i.bak "s|^certificate_arn *=.*|certificate_arn = \"$certificate\"|" serving-layer/examples/development.tfvars
each apply "${layers[@]}"
each unchanged "${modules[@]}"
mkdir "$work/policies"
for layer in "${layers[@]}"; do terraform -chdir="$layer" output -json policies >"$work/policies/$layer.json"; done
"$python" tests/applied.py "$work/policies" || fail "what was applied is not what it should be"
if [ -n "${LAMINA_TASKS_OUT:-}" ]; then
  mkdir -p "$LAMINA_TASKS_OUT"
  for layer in "${layers[@]}"; do terraform -chdir="$layer" output -json tasks >"$LAMINA_TASKS_OUT/$layer.json"; done
fi

step "another image for the speed layer"
sed -i.bak 's/^image_tag .*/image_tag = "0.2.0"/' speed-layer/examples/development.tfvars
diff - <(changes speed-layer) <<'EXPECTED' || fail "the speed layer's plan is not the one expected (>)"
delete-then-create module.layer.aws_ecs_task_definition.this["speed-layer-a"]
update module.layer.aws_ecs_service.this["speed-layer-a"]
EXPECTED
apply speed-layer
each unchanged "${modules[@]}"

step "another definition of a view"
sed -i.bak 's/amount > 500/amount > 600/' ../examples/sales/sales.sql
rm ../examples/sales/sales.sql.bak
diff - <(changes batch-layer) <<'EXPECTED' || fail "the batch layer's plan is not the one expected (>)"
update aws_s3_object.catalog["sales.sql"]
EXPECTED
apply batch-layer
each unchanged "${modules[@]}"
"$python" - <<'PYTHON' || fail "the catalog's object in the store is not the changed file"
import boto3
bucket = "lamina-development-123456789012-eu-west-1"
body = boto3.client("s3").get_object(Bucket=bucket, Key="lamina/definitions/sales.sql")["Body"].read()
assert body == open("../examples/sales/sales.sql", "rb").read()
PYTHON

step "destroy"
each destroy "${layers[@]}"
destroy foundation
step "done"
