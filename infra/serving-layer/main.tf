# The serving layer: any number of equal tasks behind a load balancer.

locals {
  foundation = module.layer.foundation
  domain     = local.foundation.cluster.namespace_name
  scheme     = local.foundation.secrets.tls_secret_arn == null ? "http" : "https"
  port       = local.foundation["serving-layer"].port

  environment = {
    LAMINA_SERVING__SPEED  = "dns://speed-layer.${local.domain}:8789"
    LAMINA_SERVING__BATCH  = "${local.scheme}://batch-layer.${local.domain}:8788"
    LAMINA_SERVING__MEMORY = "${floor(var.memory_mib * var.memory_share)}MiB"
    LAMINA_SERVING__BODY   = var.body
  }
}

module "layer" {
  source = "../modules/layer"

  region                = var.region
  environment           = var.environment
  name                  = "serving-layer"
  image_tag             = var.image_tag
  cpu                   = var.cpu
  memory_mib            = var.memory_mib
  scratch_gib           = var.scratch_gib
  environment_variables = merge(local.environment, var.settings)
  secrets               = { LAMINA_TOKENS = local.foundation.secrets.tokens_secret_arn }
  # Of the listener, as a service can only be made with a target group that a load balancer uses.
  target_group_arn = aws_lb_listener.https.default_action[0].target_group_arn

  services = { serving-layer = { tasks = var.tasks.minimum } }

  # New tasks answer before the old ones go.
  deployment    = { minimum = 100, maximum = 200 }
  grace_seconds = 300

  listed     = ["catalog", "master", "dead_letters", "views", "jobs"]
  statements = [{ sid = "Read", actions = ["s3:GetObject"], parts = ["catalog", "master", "dead_letters", "views", "jobs"] }]
}
