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

run "task" {
  command = apply

  assert {
    condition = toset([for variable in output.tasks["serving-layer"].environment : "${variable.name}=${variable.value}" if startswith(variable.name, "LAMINA_SERVING__")]) == toset([
      "LAMINA_SERVING__SPEED=dns://speed-layer.production.lamina.internal:8789",
      "LAMINA_SERVING__BATCH=https://batch-layer.production.lamina.internal:8788",
      "LAMINA_SERVING__MEMORY=9830MiB",
      "LAMINA_SERVING__BODY=16MiB",
    ])
    error_message = "The environment is not what the serving layer is to be told."
  }

  assert {
    condition     = contains(output.tasks["serving-layer"].secrets, { name = "LAMINA_TOKENS", valueFrom = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tokens" })
    error_message = "The API tokens must come out of their secret."
  }

  assert {
    condition     = aws_lb_listener.https.port == 443 && aws_lb_listener.http.default_action[0].type == "redirect"
    error_message = "The API must be over HTTPS, and HTTP send there."
  }

  assert {
    condition     = aws_lb_target_group.this.protocol == "HTTPS" && aws_lb_target_group.this.port == 8787
    error_message = "Behind the load balancer it must be TLS again."
  }

  assert {
    condition     = toset(aws_lb.api.subnets) == toset(["subnet-1", "subnet-2"])
    error_message = "A load balancer for the Internet must be in the public subnets."
  }
}

run "internal" {
  command = apply

  variables {
    internal = true
  }

  assert {
    condition     = toset(aws_lb.api.subnets) == toset(["subnet-3", "subnet-4"])
    error_message = "An internal load balancer must be in the private subnets."
  }
}

run "some_clients_only" {
  command = apply

  variables {
    client_cidrs = ["203.0.113.0/24"]
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.client : "${rule.from_port} ${rule.cidr_ipv4}"]) == toset(["80 203.0.113.0/24", "443 203.0.113.0/24"])
    error_message = "The load balancer must be open to the clients given and to nobody else."
  }
}

run "load_balancer" {
  command = apply

  # The manual forbids to balance by readiness: it is one for all tasks while a head stands still.
  assert {
    condition     = aws_lb_target_group.this.health_check[0].path == "/healthz"
    error_message = "Tasks must be taken out by /healthz, not by /readyz."
  }

  assert {
    condition     = aws_lb.api.idle_timeout > 300
    error_message = "A query may take five minutes, and the load balancer gives up before that."
  }
}
