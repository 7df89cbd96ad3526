resource "aws_ecs_service" "this" {
  for_each = var.services

  name            = each.key
  cluster         = local.foundation.cluster.cluster_arn
  task_definition = aws_ecs_task_definition.this[each.key].arn
  desired_count   = each.value.tasks
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"

  deployment_minimum_healthy_percent = var.deployment.minimum
  deployment_maximum_percent         = var.deployment.maximum
  health_check_grace_period_seconds  = var.target_group_arn == null ? null : var.grace_seconds

  # A new revision whose tasks do not become healthy gives way to the one before.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = local.foundation.network.private_subnets
    security_groups  = [local.own.security_group_id]
    assign_public_ip = false
  }

  dynamic "service_registries" {
    for_each = var.registry_arn[*]

    content {
      registry_arn = service_registries.value
    }
  }

  dynamic "load_balancer" {
    for_each = var.target_group_arn[*]

    content {
      target_group_arn = load_balancer.value
      container_name   = var.name
      container_port   = local.own.port
    }
  }

  # How many there are is for schedules and autoscaling to say, once the service is there.
  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_iam_role_policy.execution, aws_iam_role_policy.task]
}
