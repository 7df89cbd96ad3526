#!/usr/bin/env bash
# Whether what the task definitions pass is what the programs read: check-settings.sh TASKS_DIR BIN_DIR
#
# TASKS_DIR has each layer's containers as <layer>.json (`LAMINA_TASKS_OUT=TASKS_DIR infra/test.sh` writes them), BIN_DIR
# the programs. Each program gets a container's environment and nothing else, with made-up secrets: it must take all of
# it, each setting must have its effect, ports and health check must be its own, and it must come as far as to connect to
# Kafka, which here is not there. Needs Python 3 and OpenSSL.
set -euo pipefail
[ $# = 2 ] || { echo "usage: infra/check-settings.sh TASKS_DIR BIN_DIR" >&2; exit 2; }
command -v openssl >/dev/null || { echo "openssl is missing: install it" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=layer -addext subjectAltName=DNS:localhost \
  -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
cp -R "$(dirname "$0")/../examples/sales" "$work/catalog"
python3 - "$1" "$2" "$work" <<'PYTHON'
import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

tasks, binaries, work = (Path(argument).resolve() for argument in sys.argv[1:])
certificate = (work / "certificate.pem").read_text()
tokens = {"first": {"sha256": "0" * 64, "roles": ["ingest", "query"]}}
SECRETS = {
    "LAMINA_KAFKA_SASL_PASSWORD": "a made-up password",
    "LAMINA_KAFKA_SASL_USERNAME": "somebody",
    "LAMINA_SECRET": "0123456789abcdef" * 4,
    "LAMINA_TLS__CA": certificate,
    "LAMINA_TLS__CERTIFICATE": certificate,
    "LAMINA_TLS__KEY": (work / "key.pem").read_text(),
    "LAMINA_TOKENS": json.dumps(tokens),
}
# Nothing is at port 1 of this machine: whoever connects hears so at once.
OFFLINE = {
    "LAMINA_LISTEN": "127.0.0.1:0",
    "LAMINA_LOG__KAFKA": "127.0.0.1:1",
    "LAMINA_STORE__URL": (work / "store").as_uri(),
    "LAMINA_DATA": str(work / "data"),
    "TMPDIR": str(work),
}


def run(layer, environment, *arguments):
    """A program with this environment alone."""
    command = [binaries / layer, *arguments]
    return subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=120)


def settings(layer, environment):
    """What it prints of its settings; `None` where it refuses them."""
    done = run(layer, environment, "--print-settings")
    return done.stdout if done.returncode == 0 else None


def has_effect(layer, environment, name, printed):
    """Without it, or with another value, something else is printed, or it is refused."""
    without = {key: value for key, value in environment.items() if key != name}
    return settings(layer, without) != printed or settings(layer, environment | {name: "?"}) != printed


def check(layer, name, container):
    faults = []
    unknown = [secret["name"] for secret in container["secrets"] if secret["name"] not in SECRETS]
    if unknown:
        return [f"no value is known to try for the secrets {unknown}: add some to this check"]
    environment = {variable["name"]: variable["value"] for variable in container["environment"]}
    environment |= {secret["name"]: SECRETS[secret["name"]] for secret in container["secrets"]}

    done = run(layer, environment, "--print-settings")
    if done.returncode != 0:
        return [f"its settings are refused: {done.stderr.strip()}"]
    for secret in ("LAMINA_KAFKA_SASL_PASSWORD", "LAMINA_SECRET", "LAMINA_TLS__KEY"):
        if SECRETS[secret] in done.stdout:
            faults.append(f"`--print-settings` shows `{secret}`")
    if settings(layer, environment | {"LAMINA_NO_SUCH_SETTING": "1"}) is not None:
        faults.append("a setting that there is not is not refused, so this check finds nothing")
    # What is logged is no setting of the layer's, and is not printed.
    names = [variable for variable in environment if variable.startswith("LAMINA_") and variable != "LAMINA_LOG"]
    faults += [f"`{variable}` has no effect" for variable in names if not has_effect(layer, environment, variable, done.stdout)]

    port = int(environment["LAMINA_LISTEN"].rsplit(":", 1)[1])
    mapped = [(mapping["containerPort"], mapping["hostPort"]) for mapping in container["portMappings"]]
    if mapped != [(port, port)]:
        faults.append(f"it listens at port {port}, and the container's are {mapped}")

    kind, program, *arguments = container["healthCheck"]["command"]
    if kind != "CMD" or Path(program).name != layer:
        faults.append(f"the health check runs `{program}`, which is not in the image")
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = environment | {"LAMINA_LISTEN": f"0.0.0.0:{server.getsockname()[1]}"}
        if "LAMINA_TLS__CERTIFICATE" not in environment:
            faults.append("without TLS the health check is not tried: add an answer to this check")
        elif run(layer, there, *arguments).returncode != 0:
            faults.append("the health check fails though the layer listens")
    if run(layer, there, *arguments).returncode == 0:
        faults.append("the health check passes though nobody listens")

    started = run(layer, environment | OFFLINE | ({"LAMINA_CATALOG": str(work / "catalog")} if "LAMINA_CATALOG" in environment else {}))
    if started.returncode == 0 or "could not reach Kafka" not in started.stderr:
        faults.append(f"started, it should fail to reach Kafka and at nothing before; it said: {started.stderr.strip()}")
    return faults


(work / "store").mkdir()
layers = ["batch-layer", "speed-layer", "serving-layer"]
containers = [(layer, name, container) for layer in layers for name, container in json.loads((tasks / f"{layer}.json").read_text()).items()]
with ThreadPoolExecutor() as pool:
    found = list(pool.map(lambda one: check(*one), containers))
for (layer, name, container), faults in zip(containers, found):
    given = len(container["environment"]) + len(container["secrets"])
    print(f"{name}: {len(faults)} faults in {given} variables, ports, health check and start")
    for fault in faults:
        print(f"{name}: {fault}", file=sys.stderr)
sys.exit(1 if not containers or any(found) else 0)
PYTHON
