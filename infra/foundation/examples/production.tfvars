# Three zones; private subnets reach AWS's own services and nothing else.
environment         = "production"
kafka_instance_type = "kafka.m7g.large"
kafka_storage_gib   = 500
log_retention_hours = 168
log_group_days      = 90
kafka_users         = ["shop"]
