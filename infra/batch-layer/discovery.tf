# Where the serving layer finds it: batch-layer.<namespace>.

resource "aws_service_discovery_service" "this" {
  name = "batch-layer"

  dns_config {
    namespace_id   = module.layer.foundation.cluster.namespace_id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}
