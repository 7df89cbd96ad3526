# What the three layers stand on, and have in common: network, log, store, registry of images, cluster and secrets.
# The layers find it through the parameters of parameters.tf, never through this module's state.

data "aws_caller_identity" "current" {}

locals {
  name   = "lamina-${var.environment}"
  layers = toset(["batch-layer", "speed-layer", "serving-layer"])
  ports  = { batch-layer = 8788, speed-layer = 8789, serving-layer = 8787 }
}

# One key for the store, the log and the secrets. (Amazon MSK takes no secrets under AWS's own keys.)
resource "aws_kms_key" "this" {
  description             = "Lamina ${var.environment}: store, log and secrets"
  enable_key_rotation     = true
  deletion_window_in_days = var.disposable ? 7 : 30
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this.key_id
}
