# What the layers are told, a parameter a subject. This is the contract between the foundation and the layers: names and
# members may be added to, and what is there stays.

locals {
  contract = merge(
    {
      network = {
        vpc_id          = aws_vpc.this.id
        public_subnets  = [for zone in var.zones : aws_subnet.public[zone].id]
        private_subnets = [for zone in var.zones : aws_subnet.private[zone].id]
      }
      store = {
        url        = "s3://${aws_s3_bucket.store.bucket}/${var.prefix}"
        bucket     = aws_s3_bucket.store.bucket
        bucket_arn = aws_s3_bucket.store.arn
        prefix     = var.prefix
        key_arn    = aws_kms_key.this.arn
      }
      log = {
        brokers = aws_msk_cluster.log.bootstrap_brokers_sasl_scram
        cluster = aws_msk_cluster.log.cluster_name
      }
      cluster = {
        cluster_arn    = aws_ecs_cluster.this.arn
        cluster_name   = aws_ecs_cluster.this.name
        namespace_id   = aws_service_discovery_private_dns_namespace.this.id
        namespace_name = aws_service_discovery_private_dns_namespace.this.name
      }
      secrets = {
        shared_secret_arn = aws_secretsmanager_secret.shared.arn
        tokens_secret_arn = aws_secretsmanager_secret.tokens.arn
        tls_secret_arn    = one(aws_secretsmanager_secret.tls[*].arn)
      }
    },
    {
      for layer in local.layers : layer => {
        repository_url    = aws_ecr_repository.layer[layer].repository_url
        repository_arn    = aws_ecr_repository.layer[layer].arn
        log_group         = aws_cloudwatch_log_group.layer[layer].name
        log_group_arn     = aws_cloudwatch_log_group.layer[layer].arn
        security_group_id = aws_security_group.layer[layer].id
        kafka_secret_arn  = aws_secretsmanager_secret.kafka[layer].arn
        port              = local.ports[layer]
      }
    },
  )
}

resource "aws_ssm_parameter" "contract" {
  for_each = local.contract

  name  = "/lamina/${var.environment}/${each.key}"
  type  = "String"
  value = jsonencode(each.value)

  # A layer that reads them finds users that can log in, and a bucket with its rules in force.
  depends_on = [aws_msk_scram_secret_association.log, aws_s3_bucket_policy.store]
}
