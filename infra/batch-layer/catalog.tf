# The catalog's SQL files, as objects that the batch layer looks at again and again. A change of a file is a change of an
# object and of nothing else: no new task definition, no other layer's plan. The batch layer publishes what has changed,
# and the others take up what is published.

resource "aws_s3_object" "catalog" {
  for_each = fileset(var.catalog, "*.sql")

  bucket       = local.store.bucket
  key          = "${local.store.prefix}/definitions/${each.key}"
  source       = "${var.catalog}/${each.key}"
  source_hash  = filesha256("${var.catalog}/${each.key}")
  content_type = "application/sql"
}
