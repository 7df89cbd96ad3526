# The batch layer: one task that archives the log into the master dataset and recomputes the views from it.

locals {
  store = module.layer.foundation.store

  environment = {
    LAMINA_CATALOG            = "${local.store.url}/definitions"
    LAMINA_BATCH__MEMORY      = "${floor(var.memory_mib * var.memory_share)}MiB"
    LAMINA_BATCH__FLUSH_AGE   = var.flush_age
    LAMINA_BATCH__FLUSH_BYTES = var.flush_bytes
    LAMINA_BATCH__RETENTION   = var.retention
  }

  # The parts of the store that are the batch layer's to write; `probe` is where it finds out, when it starts, whether
  # the store is one to rely on.
  written = ["catalog", "master", "dead_letters", "views", "jobs", "probe"]
}

module "layer" {
  source = "../modules/layer"

  region                = var.region
  environment           = var.environment
  name                  = "batch-layer"
  image_tag             = var.image_tag
  cpu                   = var.cpu
  memory_mib            = var.memory_mib
  scratch_gib           = var.scratch_gib
  environment_variables = merge(local.environment, var.settings)
  registry_arn          = aws_service_discovery_service.this.arn

  services = { batch-layer = { tasks = 1 } }

  # The old task stops before the new one starts. Two at once would be safe, as the store refuses the second one's
  # commits, but of no use: what is not archived meanwhile is in the log, and in the speed layer's answers.
  deployment   = { minimum = 0, maximum = 100 }
  stop_seconds = 110

  writes = true
  listed = concat(local.written, ["definitions"])
  statements = [
    { sid = "Own", actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], parts = local.written },
    { sid = "Definitions", actions = ["s3:GetObject"], parts = ["definitions"] },
  ]
}
