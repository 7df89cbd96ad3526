# A group grows while it lags behind the log and shrinks when it neither lags nor works. The lag is the one that Amazon
# MSK measures: the tasks commit to their group how far they have come, for this alone. It is near zero whenever there
# are enough tasks, however many, so it cannot be a target to keep; steps of one it is. Each step moves partitions, and a
# partition that moves is rebuilt: hence the patience.

resource "aws_appautoscaling_target" "this" {
  for_each = module.layer.services

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = each.value
  min_capacity       = var.tasks.minimum
  max_capacity       = var.tasks.maximum
}

resource "aws_appautoscaling_policy" "more" {
  for_each = aws_appautoscaling_target.this

  name               = "${each.key}-more"
  policy_type        = "StepScaling"
  service_namespace  = each.value.service_namespace
  scalable_dimension = each.value.scalable_dimension
  resource_id        = each.value.resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = 300
    metric_aggregation_type = "Maximum"

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 1
    }
  }
}

resource "aws_appautoscaling_policy" "less" {
  for_each = aws_appautoscaling_target.this

  name               = "${each.key}-less"
  policy_type        = "StepScaling"
  service_namespace  = each.value.service_namespace
  scalable_dimension = each.value.scalable_dimension
  resource_id        = each.value.resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = 1800
    metric_aggregation_type = "Maximum"

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = -1
    }
  }
}

locals {
  # By service: the group whose lag counts.
  consumer_groups = { for group in keys(var.groups) : "speed-layer-${group}" => "lamina-${var.environment}-${group}" }
  lags            = [for index, topic in var.topics : { id = "lag${index}", topic = topic }]
}

resource "aws_cloudwatch_metric_alarm" "more" {
  for_each = local.consumer_groups

  alarm_name          = "lamina-${var.environment}-${each.key}-behind"
  alarm_description   = "The group lags behind the log: it gets a task more, up to ${var.tasks.maximum}."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.lag.high
  evaluation_periods  = 3
  treat_missing_data  = "ignore"
  alarm_actions       = [aws_appautoscaling_policy.more[each.key].arn]

  metric_query {
    id          = "lag"
    label       = "Events behind"
    expression  = "SUM(METRICS())"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = local.lags

    content {
      id = metric_query.value.id

      metric {
        namespace   = "AWS/Kafka"
        metric_name = "SumOffsetLag"
        period      = 60
        stat        = "Maximum"
        dimensions = {
          "Cluster Name"   = local.foundation.log.cluster
          "Consumer Group" = each.value
          "Topic"          = metric_query.value.topic
        }
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "less" {
  for_each = local.consumer_groups

  alarm_name          = "lamina-${var.environment}-${each.key}-idle"
  alarm_description   = "The group neither lags nor works: it gets a task less, down to ${var.tasks.minimum}."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = 30
  treat_missing_data  = "ignore"
  alarm_actions       = [aws_appautoscaling_policy.less[each.key].arn]

  metric_query {
    id          = "idle"
    label       = "Neither lags nor works"
    expression  = "IF(${join(" + ", local.lags[*].id)} < ${var.lag.low} AND cpu < 30, 1, 0)"
    return_data = true
  }

  metric_query {
    id = "cpu"

    metric {
      namespace   = "AWS/ECS"
      metric_name = "CPUUtilization"
      period      = 60
      stat        = "Average"
      dimensions = {
        ClusterName = local.foundation.cluster.cluster_name
        ServiceName = each.key
      }
    }
  }

  dynamic "metric_query" {
    for_each = local.lags

    content {
      id = metric_query.value.id

      metric {
        namespace   = "AWS/Kafka"
        metric_name = "SumOffsetLag"
        period      = 60
        stat        = "Maximum"
        dimensions = {
          "Cluster Name"   = local.foundation.log.cluster
          "Consumer Group" = each.value
          "Topic"          = metric_query.value.topic
        }
      }
    }
  }
}
