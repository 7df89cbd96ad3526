# Each validation has a case that it refuses. Run with `-var-file=examples/production.tfvars`.
# Not with a mocked provider, which has no ephemeral values, but with the AWS API that the credentials and
# AWS_ENDPOINT_URL lead to. Nothing is made there: every run is a plan.

run "refuses_1" {
  command = plan

  variables {
    # refuses a region that is none
    region = "europe"
    # refuses an environment that is no name
    environment = "Production!"
    # refuses a network that is none
    cidr = "10.0.0.0"
    # refuses one zone
    zones = ["a"]
    # refuses a kafka version that is none
    kafka_version = "newest"
    # refuses an instance type of another service
    kafka_instance_type = "m7g.large"
    # refuses no storage
    kafka_storage_gib = 0
    # refuses to keep events for an hour
    log_retention_hours = 1
    # refuses a user that is no name
    kafka_users = ["A shop"]
    # refuses version zero of the secrets
    secrets_version = 0
    # refuses a prefix with a slash at its end
    prefix = "lamina/"
    # refuses days that cloudwatch has not
    log_group_days = 10
  }

  expect_failures = [var.region, var.environment, var.cidr, var.zones, var.kafka_version, var.kafka_instance_type, var.kafka_storage_gib, var.log_retention_hours, var.kafka_users, var.secrets_version, var.prefix, var.log_group_days]
}

run "refuses_2" {
  command = plan

  variables {
    # refuses a network that is too small
    cidr = "10.0.0.0/28"
    # refuses a zone twice
    zones = ["a", "a"]
    # refuses a layer as a user
    kafka_users = ["batch-layer"]
  }

  expect_failures = [var.cidr, var.zones, var.kafka_users]
}

run "refuses_3" {
  command = plan

  variables {
    # refuses a zone with its region
    zones = ["eu-west-1a", "eu-west-1b"]
  }

  expect_failures = [var.zones]
}

run "refuses_4" {
  command = plan

  variables {
    # refuses gateways for some zones
    nat_gateways = 2
  }

  expect_failures = [var.nat_gateways]
}
