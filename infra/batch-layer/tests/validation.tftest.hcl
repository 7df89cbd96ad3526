# Each validation has a case that it refuses. Run with `-var-file=examples/production.tfvars`.

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

run "refuses_1" {
  command = plan

  variables {
    # refuses a region that is none
    region = "europe"
    # refuses an environment that is no name
    environment = "Production!"
    # refuses the tag latest
    image_tag = "latest"
    # refuses cpu that fargate has not
    cpu = 3000
    # refuses a setting that is none
    settings = { store = "x" }
    # refuses too little scratch
    scratch_gib = 20
    # refuses a share of all memory
    memory_share = 1
    # refuses a catalog without files
    catalog = "tests"
    # refuses an age without unit
    flush_age = "30"
    # refuses a size without unit
    flush_bytes = "64"
    # refuses a retention without unit
    retention = "a day"
    # refuses a cron of five fields
    schedules = { night = { cron = "cron(0 20 ? * MON-FRI)", tasks = 0 } }
  }

  expect_failures = [var.region, var.environment, var.image_tag, var.cpu, var.settings, var.scratch_gib, var.memory_share, var.catalog, var.flush_age, var.flush_bytes, var.retention, var.schedules]
}

run "refuses_2" {
  command = plan

  variables {
    # refuses a tag with a slash
    image_tag = "a/b"
    # refuses memory that does not go with the cpu
    cpu        = 256
    memory_mib = 4096
    # refuses a secret in the settings
    settings = { LAMINA_TOKENS = "{}" }
    # refuses too much scratch
    scratch_gib = 201
    # refuses a cron with both days
    schedules = { night = { cron = "cron(0 20 * * * *)", tasks = 0 } }
  }

  expect_failures = [var.image_tag, var.memory_mib, var.settings, var.scratch_gib, var.schedules]
}

run "refuses_3" {
  command = plan

  variables {
    # refuses memory between steps
    cpu        = 8192
    memory_mib = 18432
    # refuses an hour that is none
    schedules = { night = { cron = "cron(0 24 ? * MON-FRI *)", tasks = 0 } }
  }

  expect_failures = [var.memory_mib, var.schedules]
}

run "refuses_4" {
  command = plan

  variables {
    # refuses a cron in words
    schedules = { night = { cron = "every evening", tasks = 0 } }
  }

  expect_failures = [var.schedules]
}

run "refuses_5" {
  command = plan

  variables {
    # refuses two tasks
    schedules = { night = { cron = "cron(0 20 * * ? *)", tasks = 2 } }
  }

  expect_failures = [var.schedules]
}

run "refuses_6" {
  command = plan

  variables {
    # refuses a time zone that is none
    schedules = { night = { cron = "cron(0 20 * * ? *)", timezone = "here", tasks = 0 } }
  }

  expect_failures = [var.schedules]
}
