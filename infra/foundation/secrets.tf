# Passwords are made when they are first written and are in no state and no plan. Certificates and API tokens are not
# Terraform's: their secrets are made empty, and docs/deploy.md says how to fill them.

locals {
  kafka_users = setunion(local.layers, var.kafka_users)
}

# Amazon MSK asks for this beginning of the name.
resource "aws_secretsmanager_secret" "kafka" {
  for_each = local.kafka_users

  name                    = "AmazonMSK_${local.name}_${each.key}"
  description             = "Kafka user ${each.key}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.disposable ? 0 : 30
}

ephemeral "aws_secretsmanager_random_password" "kafka" {
  for_each = local.kafka_users

  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret_version" "kafka" {
  for_each = local.kafka_users

  secret_id                = aws_secretsmanager_secret.kafka[each.key].id
  secret_string_wo_version = var.secrets_version
  secret_string_wo = jsonencode({
    username = each.key
    password = ephemeral.aws_secretsmanager_random_password.kafka[each.key].random_password
  })
}

# Layers take requests of each other only with this one.
resource "aws_secretsmanager_secret" "shared" {
  name                    = "${local.name}/shared"
  description             = "What the layers know each other by"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.disposable ? 0 : 30
}

ephemeral "aws_secretsmanager_random_password" "shared" {
  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret_version" "shared" {
  secret_id                = aws_secretsmanager_secret.shared.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.shared.random_password
  secret_string_wo_version = var.secrets_version
}

resource "aws_secretsmanager_secret" "tokens" {
  name                    = "${local.name}/tokens"
  description             = "Hashes of the API tokens: {\"<id>\": {\"sha256\": …, \"roles\": […]}}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.disposable ? 0 : 30
}

resource "aws_secretsmanager_secret" "tls" {
  count = var.internal_tls ? 1 : 0

  name                    = "${local.name}/tls"
  description             = "The layers' certificate: {\"certificate\": …, \"key\": …, \"ca\": …}, each in PEM"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.disposable ? 0 : 30
}
