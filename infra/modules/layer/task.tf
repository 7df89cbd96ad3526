# A task definition for each service: the layer's image, what it is told, and what it may use.

locals {
  tls = local.foundation.secrets.tls_secret_arn != null

  # What every layer is told. The names are the layers' settings: an environment variable each.
  environment = merge(
    {
      AWS_REGION                     = var.region
      LAMINA_STORE__URL              = local.foundation.store.url
      LAMINA_LOG__KAFKA              = local.foundation.log.brokers
      LAMINA_KAFKA_SECURITY_PROTOCOL = "SASL_SSL"
      LAMINA_KAFKA_SASL_MECHANISMS   = "SCRAM-SHA-512"
      LAMINA_LISTEN                  = "0.0.0.0:${local.own.port}"
      LAMINA_DATA                    = local.data
      # The root of the container cannot be written to: temporary files go where there is room.
      TMPDIR = local.data
    },
    var.environment_variables,
  )

  secrets = merge(
    {
      LAMINA_SECRET              = local.foundation.secrets.shared_secret_arn
      LAMINA_KAFKA_SASL_USERNAME = "${local.own.kafka_secret_arn}:username::"
      LAMINA_KAFKA_SASL_PASSWORD = "${local.own.kafka_secret_arn}:password::"
    },
    local.tls ? {
      LAMINA_TLS__CERTIFICATE = "${local.foundation.secrets.tls_secret_arn}:certificate::"
      LAMINA_TLS__KEY         = "${local.foundation.secrets.tls_secret_arn}:key::"
      LAMINA_TLS__CA          = "${local.foundation.secrets.tls_secret_arn}:ca::"
    } : {},
    var.secrets,
  )

  data = "/var/lib/lamina"

  containers = {
    for name, service in var.services : name => {
      name      = var.name
      image     = "${local.own.repository_url}:${coalesce(service.image_tag, var.image_tag)}"
      essential = true
      user      = "10001:10001"
      # Sorted by name, as maps are: a plan then shows nothing but what has changed.
      environment            = [for key, value in merge(local.environment, service.environment) : { name = key, value = value }]
      secrets                = [for key, arn in local.secrets : { name = key, valueFrom = arn }]
      portMappings           = [{ containerPort = local.own.port, hostPort = local.own.port, protocol = "tcp" }]
      readonlyRootFilesystem = true
      mountPoints            = [{ sourceVolume = "data", containerPath = local.data, readOnly = false }]
      linuxParameters        = { capabilities = { add = [], drop = ["ALL"] }, initProcessEnabled = false }
      ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
      volumesFrom            = []
      systemControls         = []
      stopTimeout            = var.stop_seconds
      healthCheck = {
        command     = ["CMD", "/usr/local/bin/${var.name}", "--health"]
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = var.grace_seconds
      }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          "awslogs-group"         = local.own.log_group
          "awslogs-region"        = var.region
          "awslogs-stream-prefix" = name
        }
      }
    }
  }
}

resource "aws_ecs_task_definition" "this" {
  for_each = local.containers

  family                   = "lamina-${var.environment}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory_mib
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode([each.value])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  ephemeral_storage {
    size_in_gib = var.scratch_gib
  }

  volume {
    name = "data"
  }
}
