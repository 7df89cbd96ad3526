# What the foundation says. The parameters' values are plain strings, so they are read as such and show in plans.

locals {
  subjects   = toset(["network", "store", "log", "cluster", "secrets", var.name])
  foundation = { for subject, parameter in data.aws_ssm_parameter.foundation : subject => jsondecode(parameter.insecure_value) }
  own        = local.foundation[var.name]
  full_name  = "lamina-${var.environment}-${var.name}"
}

data "aws_ssm_parameter" "foundation" {
  for_each = local.subjects

  name = "/lamina/${var.environment}/${each.key}"
}
