"""What must hold of the four modules once they are applied: what the roles allow, and that no password is in a state.

    applied.py OUTPUTS    (a folder with each layer's `terraform output -json policies`, as <layer>.json)
"""

import json
import sys
from pathlib import Path

import boto3

BUCKET = "lamina-development-123456789012-eu-west-1"
STORE = f"arn:aws:s3:::{BUCKET}"
READ, WRITE = {"s3:GetObject"}, {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}

# All that each layer may do with objects, by the part of the store; and which other actions a task has.
MAY = {
    "batch-layer": {part: READ | WRITE for part in ("catalog", "master", "dead_letters", "views", "jobs", "probe")} | {"definitions": READ},
    "speed-layer": {part: READ for part in ("catalog", "master", "views", "jobs")},
    "serving-layer": {part: READ for part in ("catalog", "master", "dead_letters", "views", "jobs")},
}
KEY = {"batch-layer": {"kms:Decrypt", "kms:GenerateDataKey"}, "speed-layer": {"kms:Decrypt"}, "serving-layer": {"kms:Decrypt"}}
SECRETS = {"batch-layer": {"shared", "kafka", "tls"}, "speed-layer": {"shared", "kafka", "tls"}, "serving-layer": {"shared", "kafka", "tls", "tokens"}}


def as_list(value):
    return [value] if isinstance(value, str) else value


def granted(policy: dict) -> dict[str, set[str]]:
    """Actions by resource. There are no statements but grants."""
    found: dict[str, set[str]] = {}
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow" and "NotAction" not in statement and "NotResource" not in statement, statement
        for resource in as_list(statement["Resource"]):
            found.setdefault(resource, set()).update(as_list(statement["Action"]))
    return found


def check_task(layer: str, policy: dict) -> None:
    found = granted(policy)
    key = [resource for resource in found if resource.startswith("arn:aws:kms:")]
    expected = {f"{STORE}/lamina/{part}/*": actions for part, actions in MAY[layer].items()}
    expected |= {STORE: {"s3:ListBucket"}, **{resource: KEY[layer] for resource in key}}
    assert len(key) == 1 and found == expected, f"{layer}'s tasks may do\n{found}\nnot\n{expected}"


def check_execution(layer: str, policy: dict) -> None:
    found = granted(policy)
    kinds = {}
    for resource, actions in found.items():
        if ":secret:" in resource:
            name = resource.split(":secret:")[1]
            kinds[name.split("/")[1].split("-")[0] if "/" in name else "kafka"] = actions
            assert "/" in name or f"_{layer}-" in name, f"{layer} may read another one's secret: {resource}"
    assert kinds == {kind: {"secretsmanager:GetSecretValue"} for kind in SECRETS[layer]}, f"{layer} may read {kinds}"
    rest = {resource: actions for resource, actions in found.items() if ":secret:" not in resource}
    for resource, actions in rest.items():
        service = next(iter(actions)).split(":")[0]
        expected = {
            "ecr": {"ecr:GetAuthorizationToken"} if resource == "*" else {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
            "logs": {"logs:CreateLogStream", "logs:PutLogEvents"},
            "kms": {"kms:Decrypt"},
        }[service]
        assert actions == expected and (resource == "*" or service == "kms" or layer in resource), f"{layer}: {resource} {actions}"


def check_states() -> None:
    """Passwords are in their secrets, and there alone."""
    s3, secrets = boto3.client("s3"), boto3.client("secretsmanager")
    passwords = []
    for secret in secrets.list_secrets()["SecretList"]:
        if secret["Name"].startswith("AmazonMSK_"):
            passwords.append(json.loads(secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"])["password"])
        elif secret["Name"].endswith("/shared"):
            passwords.append(secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"])
    assert len(set(passwords)) == 4 and all(len(password) >= 40 for password in passwords), "there are not four good passwords"
    states = [s3.get_object(Bucket="state", Key=key["Key"])["Body"].read().decode() for key in s3.list_objects_v2(Bucket="state")["Contents"]]
    assert len(states) == 4 and not any(password in state for password in passwords for state in states), "a password is in a state"


for layer in MAY:
    policies = json.loads(Path(sys.argv[1], f"{layer}.json").read_text())
    check_task(layer, json.loads(policies["task"]))
    check_execution(layer, json.loads(policies["execution"]))
check_states()
print("roles allow what they should, and no password is in a state")
