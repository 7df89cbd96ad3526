# Where the serving layer finds the tasks of all groups: speed-layer.<namespace> has an address for each.

resource "aws_service_discovery_service" "this" {
  name = "speed-layer"

  dns_config {
    namespace_id   = local.foundation.cluster.namespace_id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}
