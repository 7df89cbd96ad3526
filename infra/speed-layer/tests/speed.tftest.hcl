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
          "repository_url": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lamina-production/speed-layer",
          "repository_arn": "arn:aws:ecr:eu-west-1:123456789012:repository/lamina-production/speed-layer",
          "log_group": "/lamina/production/speed-layer",
          "log_group_arn": "arn:aws:logs:eu-west-1:123456789012:log-group:/lamina/production/speed-layer",
          "security_group_id": "sg-1", "port": 8789
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

  mock_resource "aws_appautoscaling_policy" {
    defaults = { arn = "arn:aws:autoscaling:eu-west-1:123456789012:scalingPolicy:1:resource/ecs/service/mock:policyName/mock" }
  }
}

run "a_service_for_each_group" {
  command = apply

  assert {
    condition = { for name, task in output.tasks : name => one([for variable in task.environment : variable.value if variable.name == "LAMINA_SPEED__GROUP"]) } == {
      "speed-layer-a" = "lamina-production-a"
      "speed-layer-b" = "lamina-production-b"
    }
    error_message = "Each group's tasks must be told their group."
  }

  assert {
    condition     = alltrue([for task in output.tasks : contains(task.environment, { name = "LAMINA_SPEED__MEMORY", value = "11468MiB" })])
    error_message = "The memory is not the share of the task's."
  }

  assert {
    condition     = alltrue([for task in output.tasks : task.portMappings[0].containerPort == 8789 && contains(task.environment, { name = "LAMINA_LISTEN", value = "0.0.0.0:8789" })])
    error_message = "The port that is open is not the one that is listened on."
  }

  assert {
    condition     = alltrue([for task in output.tasks : !contains(task.secrets[*].name, "LAMINA_TOKENS")])
    error_message = "The speed layer knows no API tokens."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.more) == 2 && length(aws_cloudwatch_metric_alarm.less) == 2
    error_message = "Each group is scaled on its own lag."
  }
}

run "one_group_after_the_other" {
  command = apply

  variables {
    groups = { a = { image_tag = "0.2.0" }, b = {} }
  }

  assert {
    condition     = endswith(output.tasks["speed-layer-a"].image, ":0.2.0") && endswith(output.tasks["speed-layer-b"].image, ":0.1.0")
    error_message = "A group's own tag must win, and be that group's alone."
  }
}

run "lag_is_of_all_topics" {
  command = apply

  variables {
    topics = ["sales", "returns"]
  }

  assert {
    condition     = toset(flatten([for query in aws_cloudwatch_metric_alarm.more["speed-layer-a"].metric_query : [for metric in query.metric : metric.dimensions["Topic"]]])) == toset(["sales", "returns"])
    error_message = "An alarm must read every topic."
  }

  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.less["speed-layer-a"].metric_query : query.expression if query.id == "idle"]) == "IF(lag0 + lag1 < 1000 AND cpu < 30, 1, 0)"
    error_message = "A group is idle when the sum of its lags is low, and its processors too."
  }
}
