variable "region" {
  description = "AWS region, the foundation's."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must look like `eu-west-1`."
  }
}

variable "environment" {
  description = "Name of the deployment, the foundation's: the path of the parameters that are read."
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

variable "image_tag" {
  description = "Tag of the image to run. Tags are never moved, so one version is one tag."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "The tag must be letters, digits, `_`, `.` and `-`, and name one version: `latest` does not."
  }
}

variable "cpu" {
  description = "CPU units of a task: 1024 are one."
  type        = number
  default     = 2048

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "AWS Fargate has tasks of 256, 512, 1024, 2048, 4096, 8192 and 16384 CPU units."
  }
}

variable "memory_mib" {
  description = "Memory of a task, in MiB."
  type        = number
  default     = 8192

  validation {
    condition = anytrue([
      var.cpu == 256 && contains([512, 1024, 2048], var.memory_mib),
      var.cpu == 512 && contains(range(1024, 4097, 1024), var.memory_mib),
      var.cpu == 1024 && contains(range(2048, 8193, 1024), var.memory_mib),
      var.cpu == 2048 && contains(range(4096, 16385, 1024), var.memory_mib),
      var.cpu == 4096 && contains(range(8192, 30721, 1024), var.memory_mib),
      var.cpu == 8192 && contains(range(16384, 61441, 4096), var.memory_mib),
      var.cpu == 16384 && contains(range(32768, 122881, 8192), var.memory_mib),
    ])
    error_message = "AWS Fargate has no task of ${var.cpu} CPU units with ${var.memory_mib} MiB: see its table of task sizes."
  }
}

variable "scratch_gib" {
  description = "Disk of a task, in GiB, for what does not fit its memory."
  type        = number
  default     = 50

  validation {
    condition     = var.scratch_gib >= 21 && var.scratch_gib <= 200 && floor(var.scratch_gib) == var.scratch_gib
    error_message = "AWS Fargate gives a task 21 to 200 GiB of disk."
  }
}

variable "settings" {
  description = "Any other setting of the layer, by its environment variable, such as `LAMINA_SERVING__LIMITS__ROWS`."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^(LAMINA|RUST|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "A setting's name begins with `LAMINA_`, `RUST_` or `OTEL_` and is in capitals."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), ["LAMINA_SECRET", "LAMINA_TOKENS", "LAMINA_TLS__KEY", "LAMINA_KAFKA_SASL_PASSWORD"])) == 0
    error_message = "Secrets do not belong into a task's environment: they come out of AWS Secrets Manager."
  }
}

variable "certificate_arn" {
  description = "Certificate of AWS Certificate Manager, of this region, for the name that clients use."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$", var.certificate_arn))
    error_message = "The certificate must be an ARN such as `arn:aws:acm:eu-west-1:123456789012:certificate/…`."
  }

  validation {
    condition     = try(split(":", var.certificate_arn)[3], "") == var.region
    error_message = "The certificate must be of the load balancer's region."
  }
}

variable "internal" {
  description = "Whether the API can be reached from inside the network only."
  type        = bool
  default     = false
}

variable "client_cidrs" {
  description = "Addresses that may reach the API."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrhost(cidr, 0))])
    error_message = "There must be at least one range of addresses, in CIDR notation, such as `203.0.113.0/24`."
  }
}

variable "tls_policy" {
  description = "Which versions and ciphers of TLS the API speaks, as Elastic Load Balancing names them."
  type        = string
  default     = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  validation {
    condition     = can(regex("^ELBSecurityPolicy-TLS13-1-[23]-", var.tls_policy))
    error_message = "The policy must be one of TLS 1.2 or 1.3 at least, such as `ELBSecurityPolicy-TLS13-1-2-2021-06`."
  }
}

variable "tasks" {
  description = "How many tasks there are at least and at most."
  type = object({
    minimum = number
    maximum = number
  })
  default = { minimum = 2, maximum = 10 }

  validation {
    condition     = var.tasks.minimum >= 1 && var.tasks.minimum <= var.tasks.maximum && floor(var.tasks.minimum) == var.tasks.minimum && floor(var.tasks.maximum) == var.tasks.maximum
    error_message = "There must be at least one task, and no more at least than at most."
  }
}

variable "cpu_percent" {
  description = "Load of the processors that the number of tasks is kept at."
  type        = number
  default     = 60

  validation {
    condition     = var.cpu_percent >= 10 && var.cpu_percent <= 90
    error_message = "The load must be from 10 to 90 percent."
  }
}

variable "requests_per_minute" {
  description = "Requests a minute and task that the number of tasks is kept at."
  type        = number
  default     = 30000

  validation {
    condition     = var.requests_per_minute >= 60
    error_message = "There must be at least 60 requests a minute and task."
  }
}

variable "memory_share" {
  description = "Share of a task's memory that queries may use before they spill to its disk."
  type        = number
  default     = 0.6

  validation {
    condition     = var.memory_share >= 0.1 && var.memory_share <= 0.8
    error_message = "The share must be from 0.1 to 0.8: the rest is for everything else that the process does."
  }
}

variable "body" {
  description = "How large a request's body may be."
  type        = string
  default     = "16MiB"

  validation {
    condition     = can(regex("^[1-9][0-9]*(B|KiB|MiB)$", var.body))
    error_message = "The size must be a number with its unit, such as `16MiB`."
  }
}

variable "protect" {
  description = "Whether the load balancer is protected from being deleted."
  type        = bool
  default     = true
}
