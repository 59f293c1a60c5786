from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from album import captions
from album.models import Photo


class PhotoForm(forms.ModelForm):
    class Meta:
        model = Photo
        fields = ("file",)


def album(request: HttpRequest) -> HttpResponse:
    form = PhotoForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        with transaction.atomic():
            photo = form.save()
            # After the commit: a photograph that is rolled back is captioned for nobody.
            transaction.on_commit(lambda: captions.ask(photo))
        return redirect("/")
    return render(request, "album.html", {"form": form, "photos": Photo.objects.order_by("-pk")})
