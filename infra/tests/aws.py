"""An AWS API on loopback for the tests: moto, and the few calls of the Terraform provider that it lacks.

    aws.py PORT

It keeps what it is given and gives it back, which is what plans are made from. It does not check what AWS checks
(sizes of tasks, cron expressions, names of actions): the modules' own validations do, and their tests.
"""

import json
import sys
from urllib.parse import unquote

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ecs.models import Service
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.kafka import models as kafka
from moto.kafka import urls as kafka_urls
from moto.kafka.exceptions import BadRequestException, NotFoundException
from moto.kafka.responses import KafkaResponse
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket
from moto.server import main


def clusters_are_active() -> None:
    """A Kafka cluster is there at once, with brokers, and one that is not there is not found."""
    init = kafka.FakeKafkaCluster.__init__

    def active(self, *args, **kwargs):
        init(self, *args, **(kwargs | {"state": "ACTIVE"}))

    kafka.FakeKafkaCluster.__init__ = active

    for name in ("describe_cluster", "describe_cluster_v2"):

        def describe(self, cluster_arn, stock=getattr(kafka.KafkaBackend, name)):
            if cluster_arn not in self.clusters:
                raise NotFoundException(cluster_arn)
            return stock(self, cluster_arn)

        setattr(kafka.KafkaBackend, name, describe)

    def get_bootstrap_brokers(self):
        cluster = self.kafka_backend.clusters[cluster_arn(self)]
        hosts = (f"b-{n + 1}.{cluster.cluster_name}.kafka.{cluster.region_name}.example" for n in range(cluster.number_of_broker_nodes))
        return json.dumps({"bootstrapBrokerStringSaslScram": ",".join(f"{host}:9096" for host in hosts)})

    KafkaResponse.get_bootstrap_brokers = get_bootstrap_brokers


def cluster_arn(response) -> str:
    path = response.parsed_url.path.split("/clusters/")[-1]
    return unquote(path.removesuffix("/scram-secrets").removesuffix("/bootstrap-brokers"))


def clusters_have_users() -> None:
    """Secrets with users' passwords are associated with a Kafka cluster."""
    secrets: dict[str, list[str]] = {}

    def batch_associate_scram_secret(self):
        arn = cluster_arn(self)
        secrets.setdefault(arn, []).extend(self._get_param("secretArnList"))
        return json.dumps({"clusterArn": arn, "unprocessedScramSecrets": []})

    def batch_disassociate_scram_secret(self):
        arn, gone = cluster_arn(self), self._get_param("secretArnList")
        secrets[arn] = [secret for secret in secrets.get(arn, []) if secret not in gone]
        return json.dumps({"clusterArn": arn, "unprocessedScramSecrets": []})

    def list_scram_secrets(self):
        return json.dumps({"secretArnList": secrets.get(cluster_arn(self), [])})

    for call in (batch_associate_scram_secret, batch_disassociate_scram_secret, list_scram_secrets):
        setattr(KafkaResponse, call.__name__, call)


def clusters_have_configurations() -> None:
    """Kafka's server properties, in revisions."""
    configurations: dict[str, dict] = {}
    for path in ("{0}/v1/configurations$", "{0}/v1/configurations/(?P<arn>.+)$"):
        kafka_urls.url_paths[path] = KafkaResponse.dispatch

    def find(self):
        arn = unquote(self.parsed_url.path.split("/configurations/")[-1].split("/revisions")[0])
        if arn not in configurations:
            raise BadRequestException("Configuration ARN does not exist")
        return configurations[arn]

    def create_configuration(self):
        name = self._get_param("name")
        arn = f"arn:aws:kafka:{self.region}:{self.current_account}:configuration/{name}/{len(configurations)}"
        configurations[arn] = {
            "arn": arn,
            "name": name,
            "kafkaVersions": self._get_param("kafkaVersions"),
            "state": "ACTIVE",
            "creationTime": "2026-01-01T00:00:00Z",
            "latestRevision": {"revision": 1, "creationTime": "2026-01-01T00:00:00Z"},
            "properties": self._get_param("serverProperties"),
        }
        return json.dumps(described(configurations[arn]))

    def described(configuration):
        return {member: value for member, value in configuration.items() if member != "properties"}

    def describe_configuration(self):
        return json.dumps(described(find(self)))

    def describe_configuration_revision(self):
        found = find(self)
        return json.dumps({"arn": found["arn"], "revision": 1, "serverProperties": found["properties"]})

    def delete_configuration(self):
        found = configurations.pop(find(self)["arn"])
        return json.dumps({"arn": found["arn"], "state": "DELETING"})

    for call in (create_configuration, describe_configuration, describe_configuration_revision, delete_configuration):
        setattr(KafkaResponse, call.__name__, call)


def rules_are_described() -> None:
    """A rule for another group has a description too."""

    def description(self):
        return (self.ip_range or self.source_group or {}).get("Description")

    SecurityGroupRule.description = property(description)


def buckets_are_open() -> None:
    """A bucket's policy is kept, not enforced: moto takes no notice of conditions, and there is no TLS here."""
    FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL


def scaling_targets_have_tags() -> None:
    """Application Auto Scaling's tags."""
    tags: dict[str, dict[str, str]] = {}
    register = ApplicationAutoScalingResponse.register_scalable_target

    def register_scalable_target(self):
        answer = register(self)
        tags.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
        return answer

    def list_tags_for_resource(self):
        return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})

    for call in (register_scalable_target, list_tags_for_resource):
        setattr(ApplicationAutoScalingResponse, call.__name__, call)


def services_keep_their_fields() -> None:
    """What a service is made with, and moto forgets."""
    kept = {
        "deploymentConfiguration": "deployment_configuration",
        "healthCheckGracePeriodSeconds": "health_check_grace_period_seconds",
    }

    def keeping(stock):
        def call(self):
            answer = stock(self)
            name = self._get_param("serviceName") or self._get_param("service")
            service = self.ecs_backend.describe_services(self._get_param("cluster"), [name])[0][0]
            for member, attribute in kept.items():
                if (value := self._get_param(member)) is not None:
                    setattr(service, attribute, value)
            return answer

        return call

    Service.availability_zone_rebalancing = "DISABLED"
    for name in ("create_service", "update_service"):
        setattr(EC2ContainerServiceResponse, name, keeping(getattr(EC2ContainerServiceResponse, name)))


if __name__ == "__main__":
    clusters_are_active()
    clusters_have_users()
    clusters_have_configurations()
    rules_are_described()
    buckets_are_open()
    scaling_targets_have_tags()
    services_keep_their_fields()
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
