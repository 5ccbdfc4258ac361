"""The atlas page: one offline file with everything that a study found, for a person to walk through.

`page.py` says what the page holds, and puts it into its template; the other modules gather it from tables, one a part.
The app that draws it has its source in `report/atlas/` of the project's folder."""
