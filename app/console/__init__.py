"""The console below `/admin`: pages for people, in Chinese and English.

Each page is a frozen dataclass that a Jinja2 template shows. Services decide what a visitor may see, like for the API.
Everything works without scripts; htmx and `console.js` only make it nicer.

    visits      the session of a request, the check of its origin, errors as pages
    rendering   templates, headers, static files
    language    gettext, and the choice of the language;  formats  times, sizes and numbers
    words       the words for states, actions and errors;  codes  Tencent's result codes and error codes
"""
