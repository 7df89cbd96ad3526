# Where the tasks run, what they write their logs to, where their images are, and how they find each other.

resource "aws_ecs_cluster" "this" {
  name = local.name

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_cloudwatch_log_group" "layer" {
  for_each = local.layers

  name              = "/lamina/${var.environment}/${each.key}"
  retention_in_days = var.log_group_days
}

# A tag is one image for ever: that makes a task definition say exactly what runs, and rolling back exact.
resource "aws_ecr_repository" "layer" {
  for_each = local.layers

  name                 = "${local.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.disposable

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "layer" {
  for_each = aws_ecr_repository.layer

  repository = each.value.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "The last 30 images"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 30 }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_service_discovery_private_dns_namespace" "this" {
  name        = "${var.environment}.lamina.internal"
  description = "Where the layers find each other"
  vpc         = aws_vpc.this.id
}
