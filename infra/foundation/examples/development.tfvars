# Small, and gone with everything in it after `terraform destroy`.
environment         = "development"
zones               = ["a", "b"]
kafka_instance_type = "kafka.t3.small"
kafka_storage_gib   = 20
log_retention_hours = 48
log_group_days      = 7
disposable          = true
