variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must look like `eu-west-1`."
  }
}

variable "environment" {
  description = "Name of the deployment: part of every resource's name, and of the path of the parameters that the layers read."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.environment))
    error_message = "The environment must be 2 to 16 lower-case letters, digits and hyphens, beginning with a letter, such as `production`."
  }
}

variable "tags" {
  description = "Tags of every resource, beside `project`, `environment` and `layer`."
  type        = map(string)
  default     = {}
}

variable "cidr" {
  description = "Addresses of the network."
  type        = string
  default     = "10.30.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && can(regex("/(1[6-9]|2[0-2])$", var.cidr))
    error_message = "The network must be in CIDR notation with a prefix of 16 to 22 bits, such as `10.30.0.0/16`."
  }
}

variable "zones" {
  description = "Letters of the region's availability zones to use. Kafka puts a broker in each, and keeps each event on as many as three."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = contains([2, 3], length(var.zones)) && length(distinct(var.zones)) == length(var.zones)
    error_message = "There must be two or three different zones."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]$", zone))])
    error_message = "A zone is one letter, such as `a`."
  }
}

variable "nat_gateways" {
  description = "How private subnets reach what is outside: 0 for AWS's own services only, through interface endpoints; 1 for a shared NAT gateway; or one a zone."
  type        = number
  default     = 0

  validation {
    condition     = contains([0, 1, length(var.zones)], var.nat_gateways)
    error_message = "There must be no NAT gateway, 1, or as many as zones."
  }
}

variable "kafka_version" {
  description = "Version of Apache Kafka, as Amazon MSK names it."
  type        = string
  default     = "3.9.x.kraft"

  validation {
    condition     = can(regex("^[3-9]\\.[0-9]+\\.(x|[0-9]+)(\\.kraft)?$", var.kafka_version))
    error_message = "The version must be one that Amazon MSK names, such as `3.9.x.kraft`."
  }
}

variable "kafka_instance_type" {
  description = "Instance type of the brokers."
  type        = string
  default     = "kafka.m7g.large"

  validation {
    condition     = can(regex("^kafka\\.[a-z0-9]+\\.[a-z0-9]+$", var.kafka_instance_type))
    error_message = "The instance type must be one of Amazon MSK, such as `kafka.m7g.large`."
  }
}

variable "kafka_storage_gib" {
  description = "Storage of each broker, in GiB."
  type        = number
  default     = 100

  validation {
    condition     = var.kafka_storage_gib >= 1 && var.kafka_storage_gib <= 16384 && floor(var.kafka_storage_gib) == var.kafka_storage_gib
    error_message = "The storage must be a whole number from 1 to 16384 GiB."
  }
}

variable "log_retention_hours" {
  description = "How long Kafka keeps events. It is the time that the batch layer may stand still without losing any."
  type        = number
  default     = 168

  validation {
    condition     = var.log_retention_hours >= 24 && floor(var.log_retention_hours) == var.log_retention_hours
    error_message = "Events must be kept for at least 24 hours: what expires before the batch layer has archived it is lost."
  }
}

variable "kafka_users" {
  description = "Names of Kafka users beside the layers': producers and consumers of your own."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for user in var.kafka_users : can(regex("^[a-z][a-z0-9-]{1,30}$", user))])
    error_message = "A user's name must be 2 to 31 lower-case letters, digits and hyphens, beginning with a letter."
  }

  validation {
    condition     = length(setintersection(var.kafka_users, ["batch-layer", "speed-layer", "serving-layer"])) == 0
    error_message = "The layers have users of their own: `batch-layer`, `speed-layer` and `serving-layer` cannot be given."
  }
}

variable "secrets_version" {
  description = "Raise it to make new passwords and a new secret between the layers. Layers take them up when their tasks are started again."
  type        = number
  default     = 1

  validation {
    condition     = var.secrets_version >= 1 && floor(var.secrets_version) == var.secrets_version
    error_message = "The version must be a whole number from 1 up."
  }
}

variable "internal_tls" {
  description = "Whether the layers speak TLS with each other and with the load balancer. The certificate is yours to put into the secret `tls` (see docs/deploy.md)."
  type        = bool
  default     = true
}

variable "prefix" {
  description = "Where in the bucket the store is."
  type        = string
  default     = "lamina"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*$", var.prefix))
    error_message = "The prefix must be lower-case letters, digits, `-` and `_` in parts separated by `/`, without one at either end."
  }
}

variable "log_group_days" {
  description = "How long the processes' own logs are kept, in days."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_group_days)
    error_message = "The days must be a number that CloudWatch Logs offers: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, …"
  }
}

variable "disposable" {
  description = "Whether `terraform destroy` may remove what cannot be made again: all events, images and secrets."
  type        = bool
  default     = false
}
