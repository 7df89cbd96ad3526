output "task_definition_arns" {
  description = "The revision that each service runs."
  value       = module.layer.task_definition_arns
}

output "tasks" {
  description = "The container of each service: image, environment, names of secrets, ports, health check."
  value       = module.layer.tasks
}

output "policies" {
  description = "What the roles allow, in JSON: `execution` starts tasks, `task` is what they may do."
  value       = module.layer.policies
}

output "consumer_groups" {
  description = "The Kafka consumer group of each service."
  value       = local.consumer_groups
}

output "alarms" {
  description = "CloudWatch alarms that tell of a group that lags behind, by service."
  value       = { for service, alarm in aws_cloudwatch_metric_alarm.more : service => alarm.arn }
}
