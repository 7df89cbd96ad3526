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

output "catalog" {
  description = "The catalog's objects, with the hash of what is in each."
  value       = { for file, object in aws_s3_object.catalog : "s3://${object.bucket}/${object.key}" => object.source_hash }
}
