"""The module with the report of the FastAPI page, and a Django project with an empty database."""

import os
from pathlib import Path

import django
from django.core.management import call_command

Path("tasks.py").write_text(
    """
import nbqueue

@nbqueue.actor
def build_report(month: str = "") -> str:
    return f"the report of {month}"
"""
)
Path("shop/__init__.py").touch()
Path("shop/settings.py").write_text(
    """
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "of the tests"
USE_TZ = True
"""
)
Path("shop/models.py").write_text(
    """
from django.contrib.auth.models import User
from django.db import models

class Order(models.Model):
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    confirmed = models.BooleanField(default=False)

    def send_confirmation(self):
        self.confirmed = True
        self.save()
"""
)
# What `manage.py shell` does, in a project that was migrated.
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)
