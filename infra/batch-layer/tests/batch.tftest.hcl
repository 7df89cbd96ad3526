# Run with `-var-file=examples/production.tfvars`: each run changes what it is about.

mock_provider "aws" {
  # A parameter's value has the members of every subject, so that one default does for all of them.
  mock_data "aws_ssm_parameter" {
    defaults = {
      insecure_value = <<-JSON
        {
          "vpc_id": "vpc-1", "public_subnets": ["subnet-1", "subnet-2"], "private_subnets": ["subnet-3", "subnet-4"],
          "url": "s3://store/lamina", "bucket": "store", "bucket_arn": "arn:aws:s3:::store", "prefix": "lamina",
          "key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
          "brokers": "b-1.example:9096,b-2.example:9096", "cluster": "lamina-production",
          "cluster_arn": "arn:aws:ecs:eu-west-1:123456789012:cluster/lamina-production", "cluster_name": "lamina-production",
          "namespace_id": "ns-1", "namespace_name": "production.lamina.internal",
          "shared_secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shared",
          "tokens_secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tokens",
          "tls_secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls",
          "kafka_secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:kafka",
          "repository_url": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lamina-production/batch-layer",
          "repository_arn": "arn:aws:ecr:eu-west-1:123456789012:repository/lamina-production/batch-layer",
          "log_group": "/lamina/production/batch-layer",
          "log_group_arn": "arn:aws:logs:eu-west-1:123456789012:log-group:/lamina/production/batch-layer",
          "security_group_id": "sg-1", "port": 8788
        }
      JSON
    }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }

  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/mock:1" }
  }

  mock_resource "aws_service_discovery_service" {
    defaults = { arn = "arn:aws:servicediscovery:eu-west-1:123456789012:service/srv-1" }
  }
}

run "task" {
  command = apply

  assert {
    condition     = output.tasks["batch-layer"].image == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lamina-production/batch-layer:0.1.0"
    error_message = "The image is not the repository's with the tag."
  }

  assert {
    condition = { for variable in output.tasks["batch-layer"].environment : variable.name => variable.value } == {
      AWS_REGION                     = "eu-west-1"
      LAMINA_STORE__URL              = "s3://store/lamina"
      LAMINA_LOG__KAFKA              = "b-1.example:9096,b-2.example:9096"
      LAMINA_KAFKA_SECURITY_PROTOCOL = "SASL_SSL"
      LAMINA_KAFKA_SASL_MECHANISMS   = "SCRAM-SHA-512"
      LAMINA_LISTEN                  = "0.0.0.0:8788"
      LAMINA_DATA                    = "/var/lib/lamina"
      TMPDIR                         = "/var/lib/lamina"
      LAMINA_CATALOG                 = "s3://store/lamina/definitions"
      LAMINA_BATCH__MEMORY           = "9830MiB"
      LAMINA_BATCH__FLUSH_AGE        = "30s"
      LAMINA_BATCH__FLUSH_BYTES      = "64MiB"
      LAMINA_BATCH__RETENTION        = "48h"
    }
    error_message = "The environment is not what the batch layer is to be told."
  }

  assert {
    condition = toset(output.tasks["batch-layer"].secrets[*].name) == toset([
      "LAMINA_SECRET", "LAMINA_KAFKA_SASL_USERNAME", "LAMINA_KAFKA_SASL_PASSWORD",
      "LAMINA_TLS__CERTIFICATE", "LAMINA_TLS__KEY", "LAMINA_TLS__CA",
    ])
    error_message = "The secrets are not those of the batch layer: it knows no API tokens."
  }

  assert {
    condition     = output.tasks["batch-layer"].readonlyRootFilesystem && output.tasks["batch-layer"].user != "0" && output.tasks["batch-layer"].stopTimeout <= 120
    error_message = "A task must not write to its root nor be root, and must stop within the 120 seconds that ECS gives it."
  }

  assert {
    condition     = [for key in keys(output.catalog) : key] == ["s3://store/lamina/definitions/sales.sql"]
    error_message = "The catalog's files are not where the batch layer is told they are."
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0
    error_message = "Without schedules there is nothing to scale."
  }
}

run "settings_win" {
  command = apply

  variables {
    settings = { LAMINA_BATCH__FLUSH_AGE = "1s", LAMINA_LOG = "debug" }
  }

  assert {
    condition     = contains(output.tasks["batch-layer"].environment, { name = "LAMINA_BATCH__FLUSH_AGE", value = "1s" }) && contains(output.tasks["batch-layer"].environment, { name = "LAMINA_LOG", value = "debug" })
    error_message = "A setting that was given is not in the environment."
  }
}

run "schedules" {
  command = apply

  variables {
    schedules = {
      evening = { cron = "cron(0 20 ? * MON-FRI *)", timezone = "Europe/Berlin", tasks = 0 }
      first   = { cron = "cron(0/15 6 1 * ? *)", tasks = 1 }
    }
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["evening"].scalable_target_action[0].max_capacity == "0"
    error_message = "The evening does not stop the layer."
  }
}

run "alarms" {
  command = apply

  variables {
    alarm_actions = ["arn:aws:sns:eu-west-1:123456789012:somebody"]
  }

  assert {
    condition     = aws_cloudwatch_log_metric_filter.not_archived.log_group_name == "/lamina/production/batch-layer"
    error_message = "The alarm does not read the batch layer's log."
  }

  assert {
    condition = alltrue([for alarm in concat([aws_cloudwatch_metric_alarm.not_archived], aws_cloudwatch_metric_alarm.not_running) :
    contains(alarm.alarm_actions, "arn:aws:sns:eu-west-1:123456789012:somebody")])
    error_message = "Nobody is told."
  }
}
