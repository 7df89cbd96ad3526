output "region" {
  description = "Where it is."
  value       = var.region
}

output "repositories" {
  description = "Where the images of each layer are pushed."
  value       = { for layer, repository in aws_ecr_repository.layer : layer => repository.repository_url }
}

output "bucket" {
  description = "Bucket of the store."
  value       = aws_s3_bucket.store.bucket
}

output "store_url" {
  description = "The store, as the layers are told it."
  value       = local.contract.store.url
}

output "brokers" {
  description = "Kafka brokers: TLS, SCRAM-SHA-512."
  value       = aws_msk_cluster.log.bootstrap_brokers_sasl_scram
}

output "log_security_group_id" {
  description = "Security group of the brokers: let your own producers in by a rule for port 9096."
  value       = aws_security_group.log.id
}

output "kafka_secret_arns" {
  description = "Secrets with the name and password of each Kafka user."
  value       = { for user, secret in aws_secretsmanager_secret.kafka : user => secret.arn }
}

output "tokens_secret_arn" {
  description = "Secret to put the API tokens' hashes into."
  value       = aws_secretsmanager_secret.tokens.arn
}

output "tls_secret_arn" {
  description = "Secret to put the layers' certificate into; null without `internal_tls`."
  value       = one(aws_secretsmanager_secret.tls[*].arn)
}

output "namespace" {
  description = "Domain that the layers find each other in: the certificate's name is `*.` and this."
  value       = aws_service_discovery_private_dns_namespace.this.name
}

output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Subnets of tasks and brokers."
  value       = local.contract.network.private_subnets
}
