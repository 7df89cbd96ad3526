output "foundation" {
  description = "What the foundation says, by subject."
  value       = local.foundation
}

output "services" {
  description = "Names of the services, as Application Auto Scaling has them (`service/cluster/name`)."
  value       = { for name, service in aws_ecs_service.this : name => "service/${local.foundation.cluster.cluster_name}/${service.name}" }
}

output "tasks" {
  description = "The container of each service: image, command, environment, secrets, ports."
  value       = local.containers
}

output "task_definition_arns" {
  description = "The revision of each service."
  value       = { for name, definition in aws_ecs_task_definition.this : name => definition.arn }
}

output "policies" {
  description = "What the roles allow, in JSON: `execution` starts tasks, `task` is what they may do."
  value = {
    execution = data.aws_iam_policy_document.execution.json
    task      = data.aws_iam_policy_document.task.json
  }
}
