"""What every model needs: sessions, serving, kernels. It knows no medicine."""
