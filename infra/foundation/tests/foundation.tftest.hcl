# Run with `-var-file=examples/production.tfvars`: each run changes what it is about.
# Not with a mocked provider, which has no ephemeral values, but with the AWS API that the credentials and
# AWS_ENDPOINT_URL lead to. Nothing is made there: every run is a plan.

run "closed_network" {
  command = plan

  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_vpc_endpoint.this) == 4
    error_message = "Without NAT gateways the tasks need an endpoint for each service that they call."
  }

  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.map_public_ip_on_launch != true])
    error_message = "Nothing gets a public address by itself."
  }

  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.cidr_block])) == 6
    error_message = "Each subnet must have addresses of its own."
  }
}

run "a_gateway_in_each_zone" {
  command = plan

  variables {
    nat_gateways = 3
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.nat) == 3 && length(aws_vpc_endpoint.this) == 0
    error_message = "Each zone must have a gateway and a route to it."
  }
}

run "store" {
  command = plan

  assert {
    condition     = aws_s3_bucket.store.bucket == "lamina-production-123456789012-eu-west-1" && !aws_s3_bucket.store.force_destroy
    error_message = "The bucket must have a name of its own, and what is in it must stay."
  }

  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "What is deleted must be there to be brought back."
  }

  assert {
    condition     = alltrue([aws_s3_bucket_public_access_block.store.block_public_acls, aws_s3_bucket_public_access_block.store.block_public_policy, aws_s3_bucket_public_access_block.store.ignore_public_acls, aws_s3_bucket_public_access_block.store.restrict_public_buckets])
    error_message = "Nothing of the store may be public."
  }
}

run "log" {
  command = plan

  assert {
    condition     = aws_msk_cluster.log.encryption_info[0].encryption_in_transit[0].client_broker == "TLS" && aws_msk_cluster.log.client_authentication[0].sasl[0].scram
    error_message = "The log must be reached over TLS and with a password only."
  }

  assert {
    condition     = strcontains(aws_msk_configuration.log.server_properties, "min.insync.replicas=2") && strcontains(aws_msk_configuration.log.server_properties, "log.retention.hours=168")
    error_message = "An acknowledged event must be on two brokers, and stay for the time that was asked for."
  }

  assert {
    condition     = keys(output.kafka_secret_arns) == ["batch-layer", "serving-layer", "shop", "speed-layer"]
    error_message = "Each layer must have a user, and so must those that were asked for."
  }
}

run "contract" {
  command = plan

  assert {
    condition     = keys(aws_ssm_parameter.contract) == ["batch-layer", "cluster", "log", "network", "secrets", "serving-layer", "speed-layer", "store"]
    error_message = "The layers read these parameters."
  }
}

run "without_tls_between_the_layers" {
  command = plan

  variables {
    internal_tls = false
  }

  assert {
    condition     = output.tls_secret_arn == null
    error_message = "There must be no secret for a certificate that nobody uses."
  }
}
