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
          "repository_url": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lamina-production/serving-layer",
          "repository_arn": "arn:aws:ecr:eu-west-1:123456789012:repository/lamina-production/serving-layer",
          "log_group": "/lamina/production/serving-layer",
          "log_group_arn": "arn:aws:logs:eu-west-1:123456789012:log-group:/lamina/production/serving-layer",
          "security_group_id": "sg-1", "port": 8787
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

  mock_resource "aws_lb" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/api/1"
      arn_suffix = "app/api/1"
    }
  }

  mock_resource "aws_lb_target_group" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/api/1"
      arn_suffix = "targetgroup/api/1"
    }
  }

  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/api/1/1" }
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
    # refuses no clients
    client_cidrs = []
    # refuses old tls
    tls_policy = "ELBSecurityPolicy-2016-08"
    # refuses more tasks at least than at most
    tasks = { minimum = 3, maximum = 2 }
    # refuses a load of all
    cpu_percent = 100
    # refuses hardly any requests
    requests_per_minute = 1
    # refuses a body without unit
    body = "16"
  }

  expect_failures = [var.region, var.environment, var.image_tag, var.cpu, var.settings, var.scratch_gib, var.memory_share, var.client_cidrs, var.tls_policy, var.tasks, var.cpu_percent, var.requests_per_minute, var.body]
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
    # refuses a certificate that is none
    certificate_arn = "my-certificate"
    # refuses clients that are no addresses
    client_cidrs = ["everyone"]
  }

  expect_failures = [var.image_tag, var.memory_mib, var.settings, var.scratch_gib, var.certificate_arn, var.client_cidrs]
}

run "refuses_3" {
  command = plan

  variables {
    # refuses memory between steps
    cpu        = 8192
    memory_mib = 18432
    # refuses a certificate of another region
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1"
  }

  expect_failures = [var.memory_mib, var.certificate_arn]
}
