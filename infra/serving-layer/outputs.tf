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

output "dns_name" {
  description = "Name of the load balancer: have the name that clients use point to it."
  value       = aws_lb.api.dns_name
}

output "zone_id" {
  description = "Hosted zone of the load balancer, for an alias record of Amazon Route 53."
  value       = aws_lb.api.zone_id
}
