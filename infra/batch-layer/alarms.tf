# The one condition that can lose data: events wait in the log, none are archived, and the log expires. Metrics are
# Prometheus's (infra/prometheus has all alerts); this much is told without one, out of the layer's log and its tasks.

locals {
  alarms = "lamina-${var.environment}-batch-layer"
}

resource "aws_cloudwatch_log_metric_filter" "not_archived" {
  name           = "${local.alarms}-not-archived"
  log_group_name = module.layer.foundation["batch-layer"].log_group
  pattern        = "?\"nothing more is archived\" ?\"trying again\""

  metric_transformation {
    name      = "NotArchived"
    namespace = "Lamina/${var.environment}"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "not_archived" {
  alarm_name          = aws_cloudwatch_log_metric_filter.not_archived.name
  alarm_description   = "Events are not archived, and are lost if the log expires first: see LaminaNothingArchived in docs/operations.md"
  namespace           = "Lamina/${var.environment}"
  metric_name         = "NotArchived"
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}

# Where schedules stop it now and then, that it does not run is no alarm.
resource "aws_cloudwatch_metric_alarm" "not_running" {
  count = length(var.schedules) == 0 ? 1 : 0

  alarm_name          = "${local.alarms}-not-running"
  alarm_description   = "No batch layer runs: events are not archived, and are lost if the log expires first"
  namespace           = "ECS/ContainerInsights"
  metric_name         = "RunningTaskCount"
  dimensions          = { ClusterName = module.layer.foundation.cluster.cluster_name, ServiceName = basename(module.layer.services["batch-layer"]) }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
}
