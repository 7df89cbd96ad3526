# The speed layer: a service for each consumer group, whose tasks share the partitions among them.

locals {
  foundation = module.layer.foundation
}

module "layer" {
  source = "../modules/layer"

  region       = var.region
  environment  = var.environment
  name         = "speed-layer"
  image_tag    = var.image_tag
  cpu          = var.cpu
  memory_mib   = var.memory_mib
  registry_arn = aws_service_discovery_service.this.arn

  environment_variables = merge({ LAMINA_SPEED__MEMORY = "${floor(var.memory_mib * var.memory_share)}MiB" }, var.settings)

  services = {
    for group, options in var.groups : "speed-layer-${group}" => {
      tasks       = var.tasks.minimum
      image_tag   = options.image_tag
      environment = { LAMINA_SPEED__GROUP = "lamina-${var.environment}-${group}" }
    }
  }

  # New tasks take the partitions over before the old ones go.
  deployment    = { minimum = 100, maximum = 200 }
  grace_seconds = 300

  # It writes nothing: its state is made again from the master dataset and the log.
  listed     = ["catalog", "master", "views", "jobs"]
  statements = [{ sid = "Read", actions = ["s3:GetObject"], parts = ["catalog", "master", "views", "jobs"] }]
}
