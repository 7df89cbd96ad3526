# The log: Apache Kafka on Amazon MSK, over TLS, with a user and a password for each layer. SCRAM rather than IAM, as
# every Kafka client speaks it.

resource "aws_msk_configuration" "log" {
  name           = local.name
  kafka_versions = [var.kafka_version]

  # An acknowledged event is on two brokers at least. Topics are made by the batch layer or by you, never by a typing
  # mistake of a producer.
  server_properties = join("\n", [
    "auto.create.topics.enable=false",
    "default.replication.factor=${length(var.zones)}",
    "min.insync.replicas=2",
    "unclean.leader.election.enable=false",
    "log.retention.hours=${var.log_retention_hours}",
    "",
  ])

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudwatch_log_group" "log" {
  name              = "/lamina/${var.environment}/kafka"
  retention_in_days = var.log_group_days
}

resource "aws_msk_cluster" "log" {
  cluster_name           = local.name
  kafka_version          = var.kafka_version
  number_of_broker_nodes = length(var.zones)
  # Lag of consumer groups, which the speed layer is scaled on, is measured at every level.
  enhanced_monitoring = "PER_BROKER"

  broker_node_group_info {
    instance_type   = var.kafka_instance_type
    client_subnets  = [for zone in var.zones : aws_subnet.private[zone].id]
    security_groups = [aws_security_group.log.id]

    storage_info {
      ebs_storage_info {
        volume_size = var.kafka_storage_gib
      }
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.log.arn
    revision = aws_msk_configuration.log.latest_revision
  }

  client_authentication {
    sasl {
      scram = true
    }
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = aws_kms_key.this.arn

    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.log.name
      }
    }
  }
}

resource "aws_msk_scram_secret_association" "log" {
  cluster_arn     = aws_msk_cluster.log.arn
  secret_arn_list = [for user in local.kafka_users : aws_secretsmanager_secret_version.kafka[user].arn]
}
