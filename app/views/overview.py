"""overview"""

import streamlit as st

from app import state

cache = state.cache()
st.text(cache.name)
